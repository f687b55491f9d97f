"""fairseq is imported without scikit-learn and scipy.stats, and leaves the logging alone."""

import subprocess
import sys

import pytest
from scipy import stats
from sklearn import metrics

from fairseq_scl.repairs.importing import LATER, Later


def printed(code: str) -> str:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    return ended.stdout


def test_starting_imports_no_statistics():
    told = printed(
        "import sys, logging\nfrom fairseq_scl import plugin\n"
        f"print([name for name in (*{LATER}, 'pandas', 'scipy.optimize') if name in sys.modules])\n"
        "print(logging.root.level == logging.WARNING, logging.root.handlers)"
    )
    assert told == "[]\nTrue []\n"


def test_the_functions_are_there_when_they_are_called():
    told = printed(
        "import fairseq_scl.plugin, numpy as np\n"
        "from fairseq.criterions.sentence_prediction import acc_and_f1, matthews_corrcoef\n"
        "from fairseq.criterions.sentence_prediction import pearson_and_spearman\n"
        "from fairseq.tasks.audio_classification import sklearn_metrics\n"
        "a, b = np.array([0, 1, 1, 0, 1]), np.array([0, 1, 0, 0, 1])\n"
        "print(float(acc_and_f1(a, b)['f1']), float(matthews_corrcoef(a, b)))\n"
        "print(float(pearson_and_spearman(a, b)['corr']), sklearn_metrics.accuracy_score(a, b))\n"
        "import sklearn, scipy.stats; print(sklearn.__version__[0], scipy.stats.norm.cdf(0))"
    ).split()
    a, b = [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]
    expected = [
        metrics.f1_score(b, a),
        metrics.matthews_corrcoef(b, a),
        (stats.pearsonr(a, b)[0] + stats.spearmanr(a, b)[0]) / 2,
        0.8,
    ]
    assert list(map(float, told[:4])) == pytest.approx(expected)
    assert told[4:] == ["1", "0.5"]


def test_what_is_there_already_stays():
    told = printed(
        "import sklearn.metrics as before, scipy.stats, fairseq_scl.plugin, sys\n"
        "from fairseq.criterions import sentence_prediction\n"
        "print(sys.modules['sklearn.metrics'] is before)\n"
        "print(sentence_prediction.f1_score is before.f1_score)"
    )
    assert told == "True\nTrue\n"


def test_a_stand_in_has_no_dunders():
    with pytest.raises(AttributeError):
        Later("sklearn").__wrapped__  # noqa: B018
    assert isinstance(Later("sklearn").metrics, Later)


def test_fairseq_imported_first_is_left_alone():
    told = printed(
        "import logging; logging.disable(logging.INFO)\n"
        "import fairseq, sys, fairseq_scl\n"
        "print(any('fairseq_scl' in type(f).__module__ for f in sys.meta_path))"
    )
    assert told == "False\n"
