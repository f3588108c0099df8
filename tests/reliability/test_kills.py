"""A few kills of each kind; `python tests/reliability/kills.py --kills 200` is the long mode."""

from kills import dead_rank, kill_label, kill_search, kill_training

from perpixel.engine.checkpoint import load_checkpoint
from perpixel.search.folder import SearchFolder, open_folder
from perpixel.search.spaces.toy import ToySearch


def test_a_few_kills_of_a_training(tmp_path, capfd):
    kill_training(3, 5, tmp_path)
    assert "each run's files equal to the unbroken one's" in capfd.readouterr().out


def test_a_few_kills_of_label(tmp_path, capfd):
    kill_label(2, 1, tmp_path)
    assert "label: 2 kills" in capfd.readouterr().out


def test_a_few_kills_of_a_search(tmp_path, capfd):
    kill_search(1, 3, tmp_path)
    assert "each ended as the unbroken one" in capfd.readouterr().out


def test_a_search_killed_at_its_first_file_begins_anew(tmp_path):
    """Neither could it go on, for want of settings, nor begin, for the half file; and half files stayed for ever."""
    (tmp_path / ".search.json.7.part").write_text("{")
    open_folder(SearchFolder(tmp_path), ToySearch(), resume=False)
    (tmp_path / ".state.safetensors.8.part").write_bytes(b"")
    open_folder(SearchFolder(tmp_path), ToySearch(), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["search.json"]


def test_a_dead_rank_ends_the_other_in_a_sentence(tmp_path):
    """Within a minute on any machine (0.2 s measured), with exit status 2, and the last checkpoint stays whole."""
    seconds, code, sentence = dead_rank(tmp_path, 1, 3)
    assert code == 2 and seconds < 60
    assert "another process of the run died" in sentence and "last.safetensors is untouched" in sentence
    assert "\n" not in sentence and load_checkpoint(tmp_path / "run" / "last.safetensors").step > 0
