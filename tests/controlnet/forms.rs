//! Every form of a ControlNet's file gives the same, and a file for another model is refused.

use std::path::Path;

use safetensors::SafeTensors;

use super::controlnets::{Tensors, tensors, write};
use super::{Studio, TOLERANCE, golden};

const UNET: &[u8] = include_bytes!("../../models/tiny-sd/unet/diffusion_pytorch_model.fp16.safetensors");

/// The same with the names of lllyasviel's files.
fn original(tensors: Tensors) -> Tensors {
    let names = golden().tensors;
    tensors.into_iter().map(|(name, shape, values)| (names[&name].original.clone(), shape, values)).collect()
}

/// The same without the UNet's weights, and the mark of such a file.
fn difference(tensors: Tensors) -> Tensors {
    let unet = SafeTensors::deserialize(UNET).unwrap();
    let base = |name: &str| {
        let data = unet.tensor(name).ok()?;
        let halves = data.data().as_chunks::<2>().0.iter();
        Some(halves.map(|half| half::f16::from_le_bytes(*half).to_f32()).collect::<Vec<f32>>())
    };
    let without = |(name, shape, mut values): (String, Vec<usize>, Vec<f32>)| {
        for (value, base) in values.iter_mut().zip(base(&name).unwrap_or_default()) {
            *value -= base;
        }
        (name, shape, values)
    };
    tensors.into_iter().map(without).chain([("difference".to_owned(), vec![1], vec![0.0])]).collect()
}

/// Lays a ControlNet of this name into a folder.
type Lay<'a> = &'a dyn Fn(&str, &Path);

#[test]
fn every_form_of_a_file_gives_the_same() {
    let case = golden().cases.remove(2);
    let forms: [(&str, Lay<'_>); 3] = [
        ("original names", &|name, folder| {
            write(&original(tensors(name)), &folder.join(format!("{name}.safetensors")));
        }),
        ("bare original names", &|name, folder| {
            let bare = original(tensors(name)).into_iter();
            let bare = bare
                .map(|(name, shape, values)| (name.replace("control_model.", ""), shape, values))
                .collect();
            write(&bare, &folder.join("sd15").join(format!("{name}.safetensors")));
        }),
        ("differences", &|name, folder| {
            write(&difference(tensors(name)), &folder.join(format!("{name}.safetensors")));
        }),
    ];
    for (form, lay) in forms {
        let away = Studio::new(lay).distance(&case);
        assert!(away <= TOLERANCE, "{form}: {away:e}");
    }
}

#[test]
fn a_controlnet_of_another_model_is_refused_in_a_sentence() {
    let mut studio = Studio::new(|name, folder| {
        let mut narrow = tensors(name);
        narrow.iter_mut().filter(|(name, ..)| name == "conv_in.bias").for_each(|(_, shape, values)| {
            (*shape, *values) = (vec![3], vec![0.0; 3]);
        });
        write(&narrow, &folder.join(format!("{name}.safetensors")));
    });
    let input = studio.input(&golden().cases[0]);
    let error = studio.pipeline.begin(&input, 1).err().unwrap().to_string();
    assert!(error.contains("The ControlNet a cannot be used: the tensor conv_in.bias"), "{error}");
}
