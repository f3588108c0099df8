"""Architecture search: spaces of genotypes, the controller that proposes them, and the workers that try them."""
