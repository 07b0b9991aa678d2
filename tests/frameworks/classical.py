"""Models of scikit-learn, LightGBM, XGBoost and CatBoost, by the converters' own defaults.

Run in the environment of `make test-models`, which has these libraries; the server's has not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import catboost
import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from saving import Saved, save
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType as SkFloat
from skl2onnx.common.data_types import StringTensorType
from sklearn import (
    calibration,
    cluster,
    compose,
    datasets,
    decomposition,
    discriminant_analysis,
    ensemble,
    feature_extraction,
    gaussian_process,
    linear_model,
    multiclass,
    multioutput,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
    tree,
)

IRIS, KINDS = datasets.load_iris(return_X_y=True)
IRIS = IRIS.astype(np.float32)
SUGAR, COURSE = datasets.load_diabetes(return_X_y=True)
SUGAR = SUGAR.astype(np.float32)
ROWS = 40

CLASSIFIERS: dict[str, Any] = {
    "logistic_regression": linear_model.LogisticRegression(max_iter=500),
    "sgd_log_loss": linear_model.SGDClassifier(loss="log_loss", random_state=0),
    "svc_probability": svm.SVC(random_state=0),
    "linear_svc": svm.LinearSVC(random_state=0),
    "random_forest": ensemble.RandomForestClassifier(20, random_state=0),
    "extra_trees": ensemble.ExtraTreesClassifier(20, random_state=0),
    "gradient_boosting": ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
    "hist_gradient_boosting": ensemble.HistGradientBoostingClassifier(max_iter=10),
    "ada_boost": ensemble.AdaBoostClassifier(n_estimators=5, random_state=0),
    "bagging": ensemble.BaggingClassifier(n_estimators=5, random_state=0),
    "decision_tree": tree.DecisionTreeClassifier(random_state=0),
    "nearest_neighbours": neighbors.KNeighborsClassifier(),
    "gaussian_nb": naive_bayes.GaussianNB(),
    "bernoulli_nb": naive_bayes.BernoulliNB(binarize=2.0),
    "perceptron_layers": neural_network.MLPClassifier((16,), max_iter=300, random_state=0),
    "lda": discriminant_analysis.LinearDiscriminantAnalysis(),
    "qda": discriminant_analysis.QuadraticDiscriminantAnalysis(reg_param=0.1),
    "voting": ensemble.VotingClassifier(
        [("a", linear_model.LogisticRegression(max_iter=500)), ("b", naive_bayes.GaussianNB())],
        flatten_transform=False,
    ),
    "calibrated": calibration.CalibratedClassifierCV(naive_bayes.GaussianNB(), cv=3),
    "one_vs_rest": multiclass.OneVsRestClassifier(linear_model.LogisticRegression()),
    "scaled_svc": pipeline.make_pipeline(preprocessing.StandardScaler(), svm.SVC()),
}
REGRESSORS: dict[str, Any] = {
    "linear_regression": linear_model.LinearRegression(),
    "ridge": linear_model.Ridge(),
    "lasso": linear_model.Lasso(0.1),
    "svr": svm.SVR(),
    "forest_regressor": ensemble.RandomForestRegressor(20, random_state=0),
    "neighbours_regressor": neighbors.KNeighborsRegressor(),
    "gaussian_process": gaussian_process.GaussianProcessRegressor(alpha=0.1),
    "polynomial": pipeline.make_pipeline(preprocessing.PolynomialFeatures(2), linear_model.Ridge()),
}


def all_models(folder: Path) -> Iterator[Saved]:
    """Train, convert and write every model, and give what its library answers."""
    warnings.simplefilter("ignore")
    yield from classifiers(folder)
    yield from regressors(folder)
    yield from transformers(folder)
    yield from of_several_outputs(folder)
    yield from of_text(folder)
    yield from boosters(folder)


def classifiers(folder: Path) -> Iterator[Saved]:
    """Classifiers of flowers: label, and probabilities where there are any."""
    for name, model in CLASSIFIERS.items():
        model.fit(IRIS, KINDS)
        asked = {"label": model.predict(IRIS[:ROWS])}
        yield save(folder, name, to_onnx(model, IRIS[:1]), {"X": IRIS[:ROWS]}, asked)


def regressors(folder: Path) -> Iterator[Saved]:
    """Regressors of the course of an illness."""
    for name, model in REGRESSORS.items():
        model.fit(SUGAR, COURSE)
        asked = {"variable": model.predict(SUGAR[:ROWS]).reshape(-1, 1)}
        yield save(folder, name, to_onnx(model, SUGAR[:1]), {"X": SUGAR[:ROWS]}, asked)


def transformers(folder: Path) -> Iterator[Saved]:
    """What gives neither labels nor a number."""
    pca = decomposition.PCA(2).fit(IRIS)
    asked = {"variable": pca.transform(IRIS[:ROWS])}
    yield save(folder, "pca", to_onnx(pca, IRIS[:1]), {"X": IRIS[:ROWS]}, asked)
    scaler = preprocessing.MinMaxScaler().fit(IRIS)
    asked = {"variable": scaler.transform(IRIS[:ROWS])}
    yield save(folder, "min_max", to_onnx(scaler, IRIS[:1]), {"X": IRIS[:ROWS]}, asked)
    means = cluster.KMeans(3, n_init=1, random_state=0).fit(IRIS)
    asked = {"label": means.predict(IRIS[:ROWS])}
    yield save(folder, "k_means", to_onnx(means, IRIS[:1]), {"X": IRIS[:ROWS]}, asked)
    forest = ensemble.IsolationForest(n_estimators=10, random_state=0).fit(IRIS)
    asked = {"label": forest.predict(IRIS[:ROWS]).reshape(-1, 1)}
    targets = {"": 17, "ai.onnx.ml": 3}
    made = to_onnx(forest, IRIS[:1], target_opset=targets)
    yield save(folder, "isolation_forest", made, {"X": IRIS[:ROWS]}, asked)


def of_several_outputs(folder: Path) -> Iterator[Saved]:
    """Several labels a row."""
    labels = np.stack([KINDS, KINDS % 2], axis=1)
    model = multioutput.MultiOutputClassifier(linear_model.LogisticRegression(max_iter=500))
    model.fit(IRIS, labels)
    asked = {"label": model.predict(IRIS[:ROWS])}
    yield save(folder, "multi_output", to_onnx(model, IRIS[:1]), {"X": IRIS[:ROWS]}, asked)


def of_text(folder: Path) -> Iterator[Saved]:
    """Strings in: categories, and words."""
    colours = np.array([["red"], ["green"], ["blue"]] * 20, dtype=object)
    encoder = preprocessing.OneHotEncoder(sparse_output=False).fit(colours)
    made = to_onnx(encoder, initial_types=[("colour", StringTensorType([None, 1]))])
    asked = {"variable": encoder.transform(colours[:ROWS])}
    yield save(folder, "one_hot", made, {"colour": colours[:ROWS]}, asked)
    texts = np.array(["a good day", "a bad one", "good and good", "bad bad day"] * 10, object)
    good = np.array([1, 0, 1, 0] * 10)
    words = pipeline.make_pipeline(
        feature_extraction.text.TfidfVectorizer(), linear_model.LogisticRegression()
    ).fit(texts, good)
    made = to_onnx(words, initial_types=[("text", StringTensorType([None, 1]))])
    asked = {"label": words.predict(texts[:ROWS])}
    yield save(folder, "tfidf", made, {"text": texts[:ROWS, None]}, asked)
    yield mixed_columns(folder)


def mixed_columns(folder: Path) -> Saved:
    """Numbers and categories side by side, as two inputs."""
    import pandas

    table = pandas.DataFrame(
        {"size": np.arange(60, dtype=np.float32), "colour": ["red", "green", "blue"] * 20}
    )
    columns = compose.ColumnTransformer(
        [
            ("number", preprocessing.StandardScaler(), ["size"]),
            ("kind", preprocessing.OneHotEncoder(handle_unknown="ignore"), ["colour"]),
        ]
    )
    model = pipeline.make_pipeline(columns, linear_model.LogisticRegression())
    model.fit(table, table["size"] > 30)
    kinds = [("size", SkFloat([None, 1])), ("colour", StringTensorType([None, 1]))]
    given = {
        "size": table["size"].to_numpy()[:ROWS, None],
        "colour": table["colour"].to_numpy(dtype=object)[:ROWS, None],
    }
    asked = {"label": model.predict(table[:ROWS]).astype(np.int64)}
    return save(folder, "mixed_columns", to_onnx(model, initial_types=kinds), given, asked)


def boosters(folder: Path) -> Iterator[Saved]:
    """Trees of the three boosting libraries."""
    kinds = [("input", FloatTensorType([None, 4]))]
    wide = [("input", FloatTensorType([None, 10]))]
    given, sugar = {"input": IRIS[:ROWS]}, {"input": SUGAR[:ROWS]}
    convert: Callable[..., Any] = onnxmltools.convert_lightgbm
    light = lightgbm.LGBMClassifier(n_estimators=10, verbose=-1).fit(IRIS, KINDS)
    asked = {"label": light.predict(IRIS[:ROWS])}
    yield save(folder, "lightgbm_classifier", convert(light, initial_types=kinds), given, asked)
    tall = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1).fit(SUGAR, COURSE)
    asked = {"variable": tall.predict(SUGAR[:ROWS]).reshape(-1, 1)}
    yield save(folder, "lightgbm_regressor", convert(tall, initial_types=wide), sugar, asked)
    convert = onnxmltools.convert_xgboost
    boost = xgboost.XGBClassifier(n_estimators=10).fit(IRIS, KINDS)
    asked = {"label": boost.predict(IRIS[:ROWS])}
    yield save(folder, "xgboost_classifier", convert(boost, initial_types=kinds), given, asked)
    high = xgboost.XGBRegressor(n_estimators=10).fit(SUGAR, COURSE)
    asked = {"variable": high.predict(SUGAR[:ROWS]).reshape(-1, 1)}
    yield save(folder, "xgboost_regressor", convert(high, initial_types=wide), sugar, asked)
    yield from cats(folder)


def cats(folder: Path) -> Iterator[Saved]:
    """CatBoost writes ONNX itself."""
    quiet = {"iterations": 10, "verbose": False, "allow_writing_files": False}
    one = catboost.CatBoostClassifier(**quiet).fit(IRIS, KINDS)
    path = folder / "catboost.onnx"
    one.save_model(str(path), format="onnx")
    asked = {"label": one.predict(IRIS[:ROWS]).reshape(-1)}
    yield save(folder, "catboost_classifier", path, {"features": IRIS[:ROWS]}, asked)
    two = catboost.CatBoostRegressor(**quiet).fit(SUGAR, COURSE)
    two.save_model(str(path), format="onnx")
    asked = {"predictions": two.predict(SUGAR[:ROWS]).reshape(-1, 1)}
    yield save(folder, "catboost_regressor", path, {"features": SUGAR[:ROWS]}, asked)
    path.unlink()
