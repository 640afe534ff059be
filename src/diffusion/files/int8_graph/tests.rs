//! The packed weights are numpy's of `tests/golden/linear_int8.py`.

use std::borrow::Cow;
use std::io::Cursor;

use serde_json::Value as Json;

use super::*;
use crate::diffusion::files::embedded::SD_V1;
use crate::diffusion::files::{GraphBuild, ModelPlace, OnnxFile, PartFiles, PartGraph};
use crate::domain::ModelPart;

#[test]
fn weights_are_packed_as_numpy_packs_them() {
    let golden: Json =
        serde_json::from_str(include_str!("../../../../tests/golden/linear_int8.json")).unwrap();
    let list = |name: &str| golden[name].as_array().unwrap();
    let size = |name: &str| usize::try_from(golden[name].as_u64().unwrap()).unwrap();
    let (inputs, outputs) = (size("inputs"), size("outputs"));
    let layer = Layer { name: String::new(), outputs, inputs, at: 0 };
    let mut packed = vec![0; layer.length()];
    #[expect(clippy::cast_possible_truncation, reason = "numpy's values are f32")]
    let weight: Vec<f32> = list("weight").iter().map(|value| value.as_f64().unwrap() as f32).collect();
    for (index, row) in weight.chunks(inputs).enumerate() {
        let block = &mut packed[index / BLOCK * layer.of_block()..][..layer.of_block()];
        quantize_row(row, index % BLOCK, block);
    }
    let expected: Vec<u8> =
        list("packed").iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect();
    assert_eq!(packed, expected);
}

/// The number of nodes and tensors of a graph.
fn counts(onnx: &[u8]) -> (usize, usize) {
    let model = fields(onnx).unwrap();
    let graph = fields(model.iter().find_map(|field| field.bytes(7)).unwrap()).unwrap();
    let count = |number| graph.iter().filter(|field| field.number == number).count();
    (count(1), count(5))
}

#[test]
fn every_unet_of_stable_diffusion_has_its_128_layers_in_int8() {
    let kinds = [
        "unet",
        "unet_inpainting",
        "unet_controlled",
        "unet_inpainting_controlled",
        "unet_guided",
        "unet_pix2pix",
    ];
    for file in
        kinds.iter().flat_map(|name| ["cpu", "nchwc", "winograd"].map(|build| format!("{name}.{build}.onnx")))
    {
        let graph = WeightlessGraph::read(Cow::Borrowed(SD_V1.get(&file).unwrap()), 16).unwrap();
        let int8 = graph.in_int8().unwrap();
        // Eight layers in each of the sixteen transformers.
        assert_eq!(int8.layers.len(), 128, "{file}");
        assert!((223_000_000..224_000_000).contains(&int8.length()), "{file}: {}", int8.length());
        assert_eq!(counts(int8.onnx()), counts(graph.onnx()), "{file}");
        let tensors = OnnxFile::read(&mut Cursor::new(int8.onnx()), |_| true).unwrap().tensors;
        let quantized: Vec<_> =
            tensors.iter().filter(|tensor| tensor.file_beside() == Some(INT8_LOCATION)).collect();
        assert_eq!(quantized.len(), 128);
        let mut end = 0;
        for tensor in quantized {
            let (at, length) = tensor.range_beside().unwrap();
            assert_eq!((at, length), (end, tensor.shape.iter().product::<u64>()), "{}", tensor.name);
            end += length;
        }
        let rest = tensors.iter().filter(|tensor| tensor.file_beside() == Some(super::super::LOCATION));
        assert!(rest.clone().any(|tensor| tensor.name.ends_with("attn2.to_k.weight")), "{file}");
        assert!(!rest.clone().any(|tensor| tensor.name.ends_with("attn1.to_k.weight")), "{file}");
    }
}

#[test]
fn quantized_weights_are_near_the_full_ones() {
    let parts = PartFiles::find_all(&ModelPlace::Embedded).unwrap();
    let unet = &parts[&ModelPart::UNet];
    let PartGraph::Weightless(graph) = unet.graph(GraphBuild::Cpu).unwrap() else { panic!("our graph") };
    let weights = unet.weights(&graph).unwrap().unwrap();
    let int8 = graph.in_int8().unwrap();
    let buffer = int8.quantize(&weights).unwrap();
    assert_eq!(buffer.len(), int8.length());
    for layer in &int8.layers {
        let full = weights.values(&layer.name).unwrap();
        let packed = &buffer[layer.at..layer.at + layer.length()];
        for (index, value) in full.iter().enumerate() {
            let (output, input) = (index / layer.inputs, index % layer.inputs);
            let block = &packed[output / BLOCK * layer.of_block()..];
            let scale = f32::from_le_bytes(block[output % BLOCK * 4..][..4].try_into().unwrap());
            let place = SCALES + (input / DEPTH * BLOCK + output % BLOCK) * DEPTH + input % DEPTH;
            let whole = i16::from(block[place]) - OFFSET;
            assert!((f32::from(whole) * scale - value).abs() <= 0.501 * scale, "{}: {value}", layer.name);
        }
    }
}

#[test]
fn weights_that_are_no_numbers_are_not_hidden() {
    for value in [f32::NAN, f32::INFINITY] {
        let mut block = vec![0; SCALES + BLOCK * 4];
        quantize_row(&[1.0, value, 2.0, 3.0], 3, &mut block);
        assert!(f32::from_le_bytes(block[12..16].try_into().unwrap()).is_nan());
    }
}

#[test]
fn a_graph_without_such_layers_is_refused() {
    let graph = WeightlessGraph::read(Cow::Borrowed(SD_V1.get("vae_decoder.cpu.onnx").unwrap()), 0).unwrap();
    let error = graph.in_int8().err().unwrap().to_string();
    assert_eq!(error, "the graph cannot take weights: it has no linear layers that can be computed in int8");
}

#[test]
fn only_layers_with_unshared_weights_are_changed() {
    const LAYER: &str = "a.transformer_blocks.0.ff.net.2.weight";
    let node = |kind: &str, inputs: &[&str], attributes: &[(&str, u64)]| {
        let mut node = Vec::new();
        for input in inputs {
            bytes(&mut node, 1, input.as_bytes());
        }
        bytes(&mut node, 2, b"y");
        bytes(&mut node, 4, kind.as_bytes());
        for (name, value) in attributes {
            let mut attribute = Vec::new();
            bytes(&mut attribute, 1, name.as_bytes());
            number(&mut attribute, 3, *value);
            bytes(&mut node, 5, &attribute);
        }
        let domain = if kind == LINEAR { DOMAIN } else { MICROSOFT };
        bytes(&mut node, 7, domain.as_bytes());
        node
    };
    let transposed = [("transB", 1)];
    let ours = node("Linear", &["x", LAYER, "b", "", "n", "m"], &[("gated", 1)]);
    let usual = node("FusedMatMul", &["x", LAYER], &transposed);
    // The weight's note tells which order its values have.
    for (nodes, note, is_changed) in [
        (vec![usual.clone()], "", true),
        (vec![usual.clone(), usual.clone()], "", true),
        (vec![node("FusedMatMul", &["x", LAYER], &[])], "", false),
        (vec![node("FusedMatMul", &["x", LAYER], &[("transB", 0)])], "", false),
        (vec![node("FusedMatMul", &["x", LAYER], &[("transB", 1), ("transA", 1)])], "", false),
        (vec![node("FusedMatMul", &[LAYER, "x"], &transposed)], "", false),
        (vec![node("MatMul", &["x", LAYER], &transposed)], "", false),
        (vec![usual.clone(), node("Identity", &[LAYER], &[])], "", false),
        (vec![usual.clone(), node("FusedMatMul", &[LAYER, "y"], &transposed)], "", false),
        (vec![usual.clone()], "OIBo", false),
        (vec![ours.clone()], "OIBo", true),
        (vec![ours.clone()], "", false),
        (vec![ours.clone(), usual.clone()], "OIBo", false),
        (vec![node("Linear", &["x", LAYER, "", LAYER], &[])], "OIBo", false),
    ] {
        let mut graph = Vec::new();
        for node in &nodes {
            bytes(&mut graph, 1, node);
        }
        let mut tensor = Vec::new();
        number(&mut tensor, 1, 16);
        number(&mut tensor, 1, 8);
        number(&mut tensor, 2, 1);
        bytes(&mut tensor, 8, LAYER.as_bytes());
        bytes(&mut tensor, 12, note.as_bytes());
        for (key, value) in [("location", "weights"), ("offset", "0"), ("length", "512")] {
            let mut entry = Vec::new();
            bytes(&mut entry, 1, key.as_bytes());
            bytes(&mut entry, 2, value.as_bytes());
            bytes(&mut tensor, 13, &entry);
        }
        bytes(&mut graph, 5, &tensor);
        let mut model = Vec::new();
        bytes(&mut model, 7, &graph);
        let graph = WeightlessGraph::read(Cow::Owned(model), 0).unwrap();
        let int8 = graph.in_int8();
        assert_eq!(int8.is_ok(), is_changed, "{note}: {nodes:?}");
        if nodes == [ours.as_slice()] && is_changed {
            let model = int8.unwrap();
            let graph = fields(fields(model.onnx()).unwrap()[0].bytes(7).unwrap()).unwrap();
            let node = Node::read(graph[0].bytes(1).unwrap()).unwrap();
            assert_eq!(node.inputs, ["x", &format!("{LAYER}.int8"), "b", "", "n", "m"]);
            assert_eq!([node.text(2), node.text(4), node.text(7)], ["y", OPERATOR, DOMAIN]);
            let attributes: Vec<_> = node.fields.iter().filter_map(|field| field.bytes(5)).collect();
            let before = Node::read(&ours).unwrap();
            assert_eq!(
                attributes,
                before.fields.iter().filter_map(|field| field.bytes(5)).collect::<Vec<_>>()
            );
            assert_eq!(attributes.len(), 1);
        }
    }
}
