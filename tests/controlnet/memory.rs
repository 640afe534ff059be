//! What ControlNets take of the memory, and when they give it back.

use stablehand::diffusion::Adaptation;
use stablehand::domain::{GenerationInput, ImageSize};

use super::controlnets::diffusers;
use super::{Studio, golden};

#[test]
fn a_controlled_unet_takes_no_weights_of_its_own_and_everything_is_given_back() {
    let mut studio = Studio::new(diffusers);
    let (case, seed) = (golden().cases.remove(0), studio.golden.seed);
    let before = studio.pipeline.memory();
    let input = studio.input(&case);
    let generation = studio.draw(&[(input.clone(), seed)]).remove(0);
    let held = studio.pipeline.prepared_memory();
    // Its ControlNet in float32, and two usual calls.
    let weights: usize =
        golden().tensors.values().map(|tensor| tensor.shape.iter().product::<usize>() * 4).sum();
    let calls = held - u64::try_from(weights).unwrap();
    assert!(
        calls < 2 * studio.pipeline.model().memory_needs(&stablehand::runtime::Device::Cpu).unwrap().usual(2),
        "{held}"
    );
    assert!(studio.pipeline.memory() >= before + u64::try_from(weights).unwrap());
    assert!(studio.pipeline.unused_copies().is_empty(), "the generation holds them");
    drop(generation);
    assert_eq!(studio.pipeline.unused_copies().len(), 2, "the UNet and the ControlNet");
    studio.pipeline.drop_copies(u64::MAX);
    assert_eq!(studio.pipeline.memory(), before);
    // Memory that a larger picture takes is planned before.
    let larger = GenerationInput { size: ImageSize { width: 256, height: 256 }, ..input };
    let free = GenerationInput { controlnets: Vec::new(), ..larger.clone() };
    assert!(studio.pipeline.memory_for(&[&larger]) > studio.pipeline.memory_for(&[&free]));
}

#[test]
fn what_a_controlnet_keeps_between_calls_counts_until_it_has_said_everything() {
    let mut studio = Studio::new(diffusers);
    let mut input = studio.input(&golden().cases[0]);
    // Larger than a usual call, which has two rows.
    (input.num_outputs, input.num_inference_steps) = (4, 4);
    input.size = ImageSize { width: 128, height: 128 };
    input.controlnets.truncate(1);
    input.controlnets[0].end = 0.5;
    let mut generation = studio.pipeline.begin(&input, 1).unwrap();
    let mut held = vec![studio.pipeline.prepared_memory()];
    while !generation.is_done() {
        studio.pipeline.step(&mut [&mut generation]).unwrap();
        held.push(studio.pipeline.prepared_memory());
    }
    let [begun, one, two, three, end] = held[..] else { panic!("{held:?}") };
    assert!(one > two && two == three, "it has given back at its last call: {held:?}");
    assert!(two > begun && end == begun, "the UNet keeps more until the end: {held:?}");
    drop(generation);
    // A job that ends before leaves what its sessions keep.
    let mut cancelled = studio.pipeline.begin(&input, 1).unwrap();
    studio.pipeline.step(&mut [&mut cancelled]).unwrap();
    drop(cancelled);
    assert_eq!(studio.pipeline.prepared_memory(), one);
    studio.pipeline.drop_copies(u64::MAX);
    assert_eq!(studio.pipeline.prepared_memory(), 0);
}

#[test]
fn requests_that_share_a_controlnet_share_its_key() {
    let mut studio = Studio::new(diffusers);
    let cases = golden().cases;
    let two = studio.input(cases.iter().find(|case| case.units.len() == 2).unwrap());
    let one =
        |index: usize| GenerationInput { controlnets: vec![two.controlnets[index].clone()], ..two.clone() };
    let mut keys = |input: &GenerationInput| match studio.pipeline.adapt(input).unwrap() {
        Adaptation::Make(making) => making.keys(),
        Adaptation::Ready(_) => Vec::new(),
    };
    let (a, b, both) = (keys(&one(0)), keys(&one(1)), keys(&two));
    assert_eq!((a.len(), both.len()), (2, 3), "a UNet, and the ControlNets");
    assert!(a.iter().chain(&b).all(|key| both.contains(key)) && a != b);
}
