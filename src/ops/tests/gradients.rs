//! The operations that have a backward of their own beside the ones of the layers: results and gradients against the
//! plain form, which Burn differentiates.

use burn::tensor::Int;

use super::*;

type Step = Tensor<Train, 3>;

#[test]
fn weight_norm_and_its_gradients_are_those_of_its_definition() {
    for shape in [[1, 2, 1], [6, 2, 5], [40, 30, 17], [2100, 1, 3]] {
        let elements = shape.iter().product();
        let given = || {
            let direction: Step = tensor::<Train, 3>(&normal(elements, 1), shape).require_grad();
            let length: Step = tensor::<Train, 3>(&normal(shape[2], 2), [1, 1, shape[2]]).require_grad();
            (direction, length)
        };
        let from_above: Step = tensor(&normal(elements, 3), shape);
        let [fast, slow] = [<Train as Ops>::weight_norm, plain::weight_norm::<Train>].map(|form| {
            let (direction, length) = given();
            let weight = form(direction.clone(), length.clone());
            let gradients = (weight.clone() * from_above.clone()).sum().backward();
            [values(weight), values(direction.grad(&gradients).unwrap()), values(length.grad(&gradients).unwrap())]
        });
        for (fast, slow) in fast.iter().zip(&slow) {
            assert_near(fast, slow, 1e-4);
        }
    }
}

/// Rows that are taken twice, and a table with rows that nobody takes.
#[test]
fn a_row_of_a_table_gets_the_sum_of_the_gradients_of_its_uses() {
    let (entries, width) = (7, 5);
    let indices = [3_i64, 0, 3, 6, 3];
    let taken = || Tensor::<Train, 1, Int>::from_data(TensorData::new(indices.to_vec(), [5]), &FlexDevice);
    let table = tensor::<Train, 2>(&normal(entries * width, 1), [entries, width]).require_grad();
    let from_above = normal(5 * width, 2);
    let rows = <Train as Ops>::rows(table.clone(), taken());
    let gradients = (rows.clone() * tensor::<Train, 2>(&from_above, [5, width])).sum().backward();
    let mut expected = vec![0.0; entries * width];
    for (place, &index) in indices.iter().enumerate() {
        let index = usize::try_from(index).unwrap();
        for column in 0..width {
            expected[index * width + column] += f64::from(from_above[place * width + column]);
        }
    }
    assert_near(&values(table.grad(&gradients).unwrap()), &expected, 1e-6);
    let all = values(table);
    let chosen: Vec<f64> =
        indices.iter().flat_map(|&index| all[usize::try_from(index).unwrap() * width..][..width].to_vec()).collect();
    assert_eq!(values(rows), chosen);
}

/// What else holds a tensor that an operation could write over does not change.
#[test]
fn operations_in_place_leave_what_others_hold() {
    let x = tensor::<Flex, 2>(&normal(12 * 40, 1), [12, 40]);
    let before = values(x.clone());
    let dropout = Dropout { probability: 0.3, key: 5 };
    let _ = <Flex as Ops>::gelu(x.clone());
    let _ = <Flex as Ops>::dropped(x.clone(), dropout);
    let _ = <Flex as TrainOps>::gelu_backward(x.clone(), x.clone());
    let _ = <Flex as Ops>::masked_group_norm(
        x.clone().reshape([2, 6, 40]),
        tensor(&normal(40, 2), [40]),
        tensor(&normal(40, 3), [40]),
        &Lengths::new(vec![6, 4], 6),
        1e-5,
    );
    assert_eq!(values(x.clone()), before);
    let view = x.clone().slice([3..7, 5..29]);
    let expected = values(<Flex as Ops>::gelu(tensor(&single(&values(view.clone())), [4, 24])));
    assert_near(&values(<Flex as Ops>::gelu(view)), &expected, 1e-7);
    assert_eq!(values(x), before);
}

#[expect(clippy::cast_possible_truncation, reason = "they were single before")]
fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}
