import numpy as np

from rarenodes.datasets.columns import column_means, filled, fit_columns, one_hot

NAN = np.nan


def standardised(columns, rows):
    names, levels = [str(i) for i in range(columns.shape[1])], [None] * columns.shape[1]
    return fit_columns(names, columns, levels, rows).apply(columns)


def test_categories_become_columns_and_a_missing_one_is_missing_in_all():
    values = np.array([[1.0, 0], [2, 2], [NAN, NAN]])
    np.testing.assert_array_equal(
        one_hot(values, [None, ("a", "b", "c")]),
        [[1, 1, 0, 0], [2, 0, 0, 1], [NAN, NAN, NAN, NAN]],
    )


def test_missing_values_take_the_mean_over_the_given_rows():
    columns = np.array([[1.0, NAN], [3, NAN], [NAN, 7], [99, 7]])
    means = column_means(columns, np.array([0, 1, 2]))
    np.testing.assert_array_equal(means, [2, 7])
    np.testing.assert_array_equal(filled(columns, means), [[1, 7], [3, 7], [2, 7], [99, 7]])


def test_a_column_without_values_has_the_mean_that_is_given():
    columns = np.array([[1.0, NAN], [3, NAN]])
    means = column_means(columns, np.array([0, 1]), otherwise=np.array([8.0, 9.0]))
    np.testing.assert_array_equal(means, [2, 9])


def test_a_column_without_values_becomes_zero():
    columns = np.array([[NAN], [NAN], [5.0]])
    rows = np.array([0, 1])
    complete = filled(columns, column_means(columns, rows))
    np.testing.assert_array_equal(standardised(complete, rows), [[0], [0], [0]])


def test_standardised_over_the_given_rows_alone():
    columns = np.array([[1.0], [3], [100]])
    np.testing.assert_array_equal(standardised(columns, np.array([0, 1])), [[-1], [1], [98]])


def test_a_constant_column_becomes_zero_though_its_mean_is_rounded():
    columns = np.full((7, 1), 0.1)
    columns[6] = 0.2
    assert not standardised(columns, np.arange(6)).any()
