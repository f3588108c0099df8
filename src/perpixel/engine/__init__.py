"""Train, evaluate, predict, convert: works with any model through forward, loss and predict."""
