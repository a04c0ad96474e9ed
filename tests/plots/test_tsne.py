import numpy as np

from lingula.plots.tsne import chance_agreement, neighbour_agreement, project, scatter, singly_labelled


def test_singly_labelled_looks_at_the_most_frequent_labels_only():
    labels = np.array(
        [
            [1, 0, 0],
            [1, 0, 1],  # the third label is too rare to be looked at: still one of the first two
            [1, 1, 0],  # two: out
            [0, 1, np.nan],
            [0, -1, 1],  # none of the two for sure: out
            [1, -1, 0],
            [0, 1, 0],
        ]
    )
    films, label, columns = singly_labelled(labels, most=2)
    assert columns.tolist() == [0, 1]
    assert films.tolist() == [0, 1, 3, 5, 6]
    assert label.tolist() == [0, 0, 1, 0, 1]


def test_singly_labelled_of_nothing():
    films, label, columns = singly_labelled(np.full((3, 2), np.nan))
    assert len(films) == len(label) == len(columns) == 0


def test_agreement_is_one_for_groups_and_chance_for_noise():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    apart = rng.normal(size=(200, 8)) + 20 * labels[:, None]
    assert neighbour_agreement(apart, labels) == 1.0
    assert abs(neighbour_agreement(rng.normal(size=(200, 8)), labels) - chance_agreement(labels)) < 0.06
    assert np.isclose(chance_agreement(np.array([0, 0, 1])), 1 / 3)  # of six ordered pairs two agree


def test_agreement_against_a_literal_loop():
    rng = np.random.default_rng(1)
    features, labels = (
        rng.normal(size=(12, 3)) * [1, 10, 0],
        rng.integers(3, size=12),
    )  # a constant column is no trouble
    spread = features.std(0)
    scaled = np.stack([features[:, i] / spread[i] if spread[i] else features[:, i] for i in range(3)], 1)
    shares = []
    for i in range(12):
        distances = sorted((float(((scaled[i] - scaled[j]) ** 2).sum()), j) for j in range(12) if j != i)
        shares.append(np.mean([labels[j] == labels[i] for _, j in distances[:5]]))
    assert np.isclose(neighbour_agreement(features, labels), np.mean(shares))


def test_map_is_the_same_for_the_same_seed_and_every_film_is_drawn():
    features = np.random.default_rng(0).normal(size=(20, 4))
    points = project(features, 0)
    assert points.shape == (20, 2)
    assert np.array_equal(points, project(features, 0))
    figure = scatter(points, ["a_b"] * 12 + ["c"] * 8, ["a_b", "c"], "trained")
    assert [len(drawn.get_offsets()) for drawn in figure.axes[0].collections] == [12, 8]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a b (12)", "c (8)"]
