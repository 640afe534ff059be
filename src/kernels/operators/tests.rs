use ndarray::{ArrayD, IxDyn};
use ort::session::{Session, SessionInputValue};
use ort::value::Tensor;

use super::*;
use crate::runtime::{DeviceChoice, GraphSource, Runtime};

/// A field of ONNX's protobuf with some bytes, of which there are at most 16,383.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let low = |bits: usize| u8::try_from(value.len() >> bits & 127).unwrap();
    [&[number << 3 | 2, low(0) | 128, low(7)], value].concat()
}

/// A graph of one node whose inputs have no shapes.
fn graph(operator: &str, inputs: &[&str], attributes: &[Vec<u8>]) -> Vec<u8> {
    let named = |number: u8, name: &str| field(number, name.as_bytes());
    let float = [8, 1];
    let value = |name: &str| [named(1, name), field(2, &field(1, &float))].concat();
    let mut node: Vec<u8> = inputs.iter().flat_map(|name| named(1, name)).collect();
    node.extend([named(2, "y"), named(4, operator), named(7, DOMAIN)].concat());
    node.extend(attributes.iter().flat_map(|attribute| field(5, attribute)));
    let mut graph = [field(1, &node), named(2, "graph")].concat();
    for name in inputs.iter().filter(|name| !name.is_empty()) {
        graph.extend(field(11, &value(name)));
    }
    graph.extend(field(12, &value("y")));
    let version = |number: u8| vec![16, number];
    let ours = [named(1, DOMAIN), version(1)].concat();
    [vec![8, 9], field(7, &graph), field(8, &version(21)), field(8, &ours)].concat()
}

const INPUTS: [&str; 6] = ["x", "w", "b", "s", "i", "n"];

/// An attribute that is a small whole number.
fn whole(name: &str, value: u8) -> Vec<u8> {
    [field(1, name.as_bytes()), vec![24, value, 160, 1, 2]].concat()
}

fn float(name: &str, value: f32) -> Vec<u8> {
    [field(1, name.as_bytes()), vec![21], value.to_le_bytes().to_vec(), vec![160, 1, 1]].concat()
}

fn session(inputs: usize) -> Session {
    opened(&graph("Conv3x3", &INPUTS[..inputs], &[])).unwrap()
}

fn group_norm(attributes: &[Vec<u8>]) -> ort::Result<Session> {
    opened(&graph("GroupNorm", &INPUTS[..3], attributes))
}

fn attention(attributes: &[Vec<u8>]) -> ort::Result<Session> {
    opened(&graph("Attention", &INPUTS[..3], attributes))
}

fn opened(graph: &[u8]) -> ort::Result<Session> {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let builder = Session::builder(runtime.environment()).unwrap();
    let mut builder = builder.with_operators(operators(2).unwrap()).unwrap();
    builder.commit_from_memory(graph)
}

/// What comes out for tensors of ones in these shapes: the shape, and the values.
fn run(session: &mut Session, shapes: &[&[usize]]) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    run_with(session, shapes, [1.0; 6])
}

/// The same for tensors of other values, one for each input.
fn run_with(
    session: &mut Session,
    shapes: &[&[usize]],
    values: [f32; 6],
) -> ort::Result<(Vec<i64>, Vec<f32>)> {
    let inputs: Vec<(&str, SessionInputValue<'_>)> = INPUTS
        .into_iter()
        .zip(shapes.iter().zip(values))
        .map(|(name, (shape, value))| {
            let equal = Tensor::from_array(ArrayD::from_elem(IxDyn(shape), value)).unwrap();
            (name, equal.into())
        })
        .collect();
    let outputs = session.run(inputs)?;
    let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
    Ok((shape.to_vec(), values.to_vec()))
}

#[test]
fn it_adds_the_bias_the_shift_and_the_image() {
    let shapes: [&[usize]; 5] = [&[2, 16, 3, 3], &[32, 16, 3, 3], &[32], &[2, 32], &[2, 32, 3, 3]];
    for (count, more) in [(3, 1.0), (4, 2.0), (5, 3.0)] {
        let (shape, values) = run(&mut session(count), &shapes[..count]).unwrap();
        assert_eq!(shape, [2, 32, 3, 3]);
        // Sixteen channels of four, six or nine neighbours.
        let corner = 16.0 * 4.0 + more;
        let edge = 16.0 * 6.0 + more;
        let expected = [corner, edge, corner, edge, 16.0 * 9.0 + more, edge, corner, edge, corner];
        for (value, expected) in values.iter().zip(expected.iter().cycle()) {
            assert!((value - expected).abs() < 1e-3, "{count} inputs: {value} in place of {expected}");
        }
    }
}

#[test]
fn tensors_of_wrong_shapes_are_refused() {
    let mut session = session(5);
    let right: [&[usize]; 5] = [&[2, 16, 4, 5], &[32, 16, 3, 3], &[32], &[2, 32], &[2, 32, 4, 5]];
    run(&mut session, &right).unwrap();
    for (input, shape, reason) in [
        (0, &[16, 4, 5][..], "needs an image"),
        (0, &[], "needs an image"),
        (0, &[1, 2, 16, 4, 5], "needs an image"),
        (0, &[2, 32, 4, 5], "other channels"),
        (0, &[2, 8, 4, 5], "other channels"),
        (0, &[3, 16, 4, 5], "image to add"),
        (0, &[2, 16, 5, 5], "image to add"),
        (1, &[32, 16, 9], "needs an image"),
        (1, &[32, 16, 5, 5], "3×3 weights"),
        (1, &[32, 16, 3, 1], "3×3 weights"),
        (1, &[32], "3×3 weights"),
        (1, &[], "3×3 weights"),
        (1, &[48, 16, 3, 3], "image to add"),
        (2, &[16], "bias"),
        (2, &[0], "bias"),
        (2, &[], "bias"),
        (3, &[2, 31], "shift"),
        (3, &[0, 32], "shift"),
        (4, &[2, 32, 4], "image to add"),
        (4, &[2, 32, 0, 5], "image to add"),
        (4, &[2, 32, 5, 4], "image to add"),
    ] {
        let mut shapes = right;
        shapes[input] = shape;
        let error = run(&mut session, &shapes).unwrap_err().to_string();
        assert!(error.contains(reason), "{} {shape:?}: {error}", INPUTS[input]);
    }
    for (weight, reason) in [(&[31, 16, 3, 3][..], "multiples of 16"), (&[48, 16, 3, 3], "another size")] {
        let error = run(&mut self::session(3), &[right[0], weight, right[2]]).unwrap_err().to_string();
        assert!(error.contains(reason), "{weight:?}: {error}");
    }
}

#[test]
fn empty_images_are_empty_results_and_no_channels_are_refused() {
    let mut session = session(3);
    for image in [&[0, 16, 4, 5][..], &[2, 16, 0, 5], &[2, 16, 4, 0]] {
        let (shape, values) = run(&mut session, &[image, &[32, 16, 3, 3], &[32]]).unwrap();
        assert_eq!((shape[1], values.len()), (32, 0), "{image:?}");
    }
    let (_, none) = run(&mut session, &[&[2, 16, 4, 5], &[0, 16, 3, 3], &[0]]).unwrap();
    assert!(none.is_empty());
    // Nothing would be summed up: what an earlier call left in memory must not come out.
    let error = run(&mut session, &[&[2, 0, 4, 5], &[32, 0, 3, 3], &[32]]).unwrap_err();
    assert!(error.to_string().contains("no input channels"), "{error}");
}

#[test]
fn a_group_norm_of_equal_values_is_its_bias() {
    let epsilon = || float("epsilon", 1e-5);
    for (silu, expected) in [(0, 1.0), (1, 0.731_058_6)] {
        let mut session = group_norm(&[whole("groups", 4), epsilon(), whole("silu", silu)]).unwrap();
        for shape in [&[2, 8, 3, 5][..], &[1, 8], &[3, 8, 7]] {
            let (result, values) = run(&mut session, &[shape, &[8], &[8]]).unwrap();
            assert_eq!(result, shape.iter().map(|size| i64::try_from(*size).unwrap()).collect::<Vec<_>>());
            assert!(values.iter().all(|value| (value - expected).abs() < 1e-6), "{silu}: {values:?}");
        }
        let (_, none) = run(&mut session, &[&[2, 8, 0, 5], &[8], &[8]]).unwrap();
        assert!(none.is_empty());
        for (shapes, reason) in [
            ([&[2][..], &[8], &[8]], "needs images"),
            ([&[2, 6, 3, 5], &[6], &[6]], "multiple of the groups"),
            ([&[2, 8, 3, 5], &[7], &[8]], "another size"),
            ([&[2, 8, 3, 5], &[8], &[16]], "another size"),
        ] {
            let error = run(&mut session, &shapes).unwrap_err().to_string();
            assert!(error.contains(reason), "{shapes:?}: {error}");
        }
    }
    for attributes in [vec![], vec![whole("groups", 4)], vec![epsilon()]] {
        assert!(group_norm(&attributes).unwrap_err().to_string().contains("it has no"));
    }
    let error = run(&mut group_norm(&[whole("groups", 0), epsilon()]).unwrap(), &[&[2, 8], &[8], &[8]]);
    assert!(error.unwrap_err().to_string().contains("multiple of the groups"));
}

fn linear(inputs: usize, attributes: &[Vec<u8>]) -> Session {
    opened(&graph("Linear", &INPUTS[..inputs], attributes)).unwrap()
}

#[test]
fn a_linear_layer_has_what_is_around_it() {
    let shapes: [&[usize]; 6] = [&[2, 3, 32], &[64, 32], &[64], &[2, 3, 64], &[32], &[32]];
    // Of the input, weight, bias, what is added, and the weight and bias of the norm. Equal values are normed to its bias.
    let values = [1.0, 2.0, 5.0, 7.0, 3.0, 4.0];
    for (inputs, expected) in [(2, 64.0), (3, 69.0), (4, 76.0), (6, 268.0)] {
        let mut session = linear(inputs, &[float("epsilon", 1e-5)]);
        let (shape, results) = run_with(&mut session, &shapes[..inputs], values).unwrap();
        assert_eq!(shape, [2, 3, 64]);
        assert!(results.iter().all(|result| (result - expected).abs() < 1e-3), "{inputs}: {results:?}");
    }
    // Inputs may be left out in between.
    let names = ["x", "w", "", "s", "", ""];
    let mut session = opened(&graph("Linear", &names, &[])).unwrap();
    let given = ["x", "w", "s"].map(|name| {
        let place = INPUTS.iter().position(|input| *input == name).unwrap();
        let tensor = Tensor::from_array(ArrayD::from_elem(IxDyn(shapes[place]), values[place])).unwrap();
        (name, SessionInputValue::from(tensor))
    });
    let outputs = session.run(Vec::from(given)).unwrap();
    let (_, results) = outputs[0].try_extract_tensor::<f32>().unwrap();
    assert!(results.iter().all(|result| (result - 71.0).abs() < 1e-3), "{results:?}");
    drop(outputs);
    let mut gated = linear(3, &[whole("gated", 1)]);
    let (shape, results) = run(&mut gated, &shapes[..3]).unwrap();
    // GELU of 33 is 33.
    assert_eq!(shape, [2, 3, 32]);
    assert!(results.iter().all(|result| (result - 33.0 * 33.0).abs() < 1e-2), "{results:?}");
    let (_, none) = run(&mut gated, &[&[2, 0, 32], &[64, 32], &[64]]).unwrap();
    assert!(none.is_empty());
}

#[test]
fn linear_layers_of_wrong_shapes_are_refused() {
    let right: [&[usize]; 6] = [&[2, 3, 32], &[64, 32], &[64], &[2, 3, 32], &[32], &[32]];
    let attributes = [whole("gated", 1), float("epsilon", 1e-5)];
    let mut session = linear(6, &attributes);
    run(&mut session, &right).unwrap();
    for (input, shape, reason) in [
        (0, &[][..], "needs rows"),
        (0, &[2, 3, 16], "other rows"),
        (1, &[64], "weight for rows"),
        (1, &[64, 16], "other rows"),
        (1, &[48, 32], "another shape"),
        (2, &[32], "bias"),
        (3, &[2, 3, 64], "another shape"),
        (3, &[3, 2, 32], "another shape"),
        (4, &[16], "norm"),
        (5, &[0], "norm"),
    ] {
        let mut shapes = right;
        shapes[input] = shape;
        let error = run(&mut session, &shapes).unwrap_err().to_string();
        assert!(error.contains(reason), "{} {shape:?}: {error}", INPUTS[input]);
    }
    for (x, weight, reason) in [
        (&[2, 3, 0][..], &[64, 0][..], "input has"),
        (&[2, 3, 32], &[48, 32], "multiple of 16, or of 32"),
        (&[2, 3, 32], &[0, 32], "multiple of 16, or of 32"),
        (&[2, 3, 8], &[64, 8], "multiple of 16"),
    ] {
        let mut plain = linear(2, &attributes);
        let error = run(&mut plain, &[x, weight]).unwrap_err().to_string();
        assert!(error.contains(reason), "{x:?} {weight:?}: {error}");
    }
    let error = run(&mut linear(6, &[whole("gated", 1)]), &right).unwrap_err().to_string();
    assert!(error.contains("it has no epsilon"), "{error}");
    let error = run(&mut linear(5, &attributes), &right[..5]).unwrap_err().to_string();
    assert!(error.contains("no weight or no bias"), "{error}");
    let error = opened(&graph("Linear", &INPUTS[..2], &[whole("gated", 2)])).unwrap_err().to_string();
    assert!(error.contains("gated is neither 0 nor 1"), "{error}");
}

#[test]
fn attention_to_equal_values_is_that_value() {
    let mut session = attention(&[whole("heads", 2)]).unwrap();
    let (shape, values) = run(&mut session, &[&[2, 5, 12], &[2, 7, 12], &[2, 7, 12]]).unwrap();
    assert_eq!(shape, [2, 5, 12]);
    assert!(values.iter().all(|value| (value - 1.0).abs() < 1e-6), "{values:?}");
    let (_, none) = run(&mut session, &[&[2, 0, 12], &[2, 7, 12], &[2, 7, 12]]).unwrap();
    assert!(none.is_empty());
    for (shapes, reason) in [
        ([&[5, 12][..], &[7, 12], &[7, 12]], "rows of channels"),
        ([&[2, 5, 12], &[2, 7, 2, 6], &[2, 7, 12]], "rows of channels"),
        ([&[2, 5, 12], &[1, 7, 12], &[1, 7, 12]], "other queries"),
        ([&[2, 5, 12], &[2, 7, 10], &[2, 7, 10]], "other queries"),
        ([&[2, 5, 12], &[2, 7, 12], &[2, 6, 12]], "other keys"),
        ([&[2, 5, 12], &[2, 7, 12], &[2, 7]], "other keys"),
        ([&[2, 5, 12], &[2, 0, 12], &[2, 0, 12]], "no keys"),
        ([&[2, 5, 13], &[2, 7, 13], &[2, 7, 13]], "multiple of the heads"),
        ([&[2, 5, 0], &[2, 7, 0], &[2, 7, 0]], "multiple of the heads"),
        ([&[1, 1, 9000], &[1, 1, 9000], &[1, 1, 9000]], "too wide"),
    ] {
        let error = run(&mut session, &shapes).unwrap_err().to_string();
        assert!(error.contains(reason), "{shapes:?}: {error}");
    }
    assert!(attention(&[]).unwrap_err().to_string().contains("it has no heads"));
    let mut without = attention(&[whole("heads", 0)]).unwrap();
    let error = run(&mut without, &[&[2, 5, 12], &[2, 7, 12], &[2, 7, 12]]).unwrap_err();
    assert!(error.to_string().contains("multiple of the heads"), "{error}");
}

#[test]
fn exported_graphs_have_no_such_operator() {
    let runtime = Runtime::load(DeviceChoice::Cpu).unwrap();
    let error =
        runtime.session(GraphSource::Memory(&graph("Conv3x3", &INPUTS[..3], &[]))).unwrap_err().to_string();
    assert!(error.contains("Conv3x3") || error.contains(DOMAIN), "{error}");
}
