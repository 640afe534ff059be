//! The estimates against what was measured.

use std::num::NonZero;

use super::*;

/// Stable Diffusion v1.5 from a checkpoint, on a CPU.
pub const SD1: MemoryNeeds = MemoryNeeds {
    weights: 4_270_000_000,
    float32_vae: 0,
    checker: 0,
    is_on_cpu: true,
    holds_scores: false,
    value: F32,
    unet_channels: 320,
    heads: 8,
    vae_channels: 128,
    scale: 8,
    native_side: 512,
    threads: 2,
};
/// The same on a card.
const ON_A_CARD: MemoryNeeds = MemoryNeeds {
    weights: 2_133_000_000,
    float32_vae: 334_000_000,
    is_on_cpu: false,
    value: F16,
    threads: 0,
    ..SD1
};

fn is_within_a_tenth(estimate: u64, measured: u64) {
    assert!(estimate.abs_diff(measured) * 10 <= measured, "{estimate} is not about {measured}");
}

#[test]
fn a_picture_takes_what_was_measured() {
    // Resident memory at most while it draws 512 × 512 (`docs/measured.md`).
    let at = |width| {
        let size = ImageSize { width, height: 512 };
        SD1.weights() + SD1.unet(size, 2) + SD1.vae(size) + SD1.pictures(size, 1)
    };
    is_within_a_tenth(SD1.usual(2), 5_490_000_000);
    assert_eq!(at(512), SD1.usual(2));
    assert!(at(768) > at(512) + 500_000_000);
}

#[test]
fn a_card_takes_what_was_measured() {
    // An H100 after calls of 16 rows (`docs/gpu.md`), with CUDA's own memory. It had loaded no VAE in float32.
    let own = Device::Cuda { index: 0, memory_gib: None }.own_memory();
    is_within_a_tenth(ON_A_CARD.usual(16) + own, 5_300_000_000);
    // Its weights, and its maps of four bytes a value.
    let in_float32 = ON_A_CARD.vae_in_float32(SD1.usual_size());
    assert_eq!(in_float32, 334_000_000 + 2 * ON_A_CARD.vae(SD1.usual_size()));
}

#[test]
fn tiles_take_what_the_threads_transform_and_no_more_than_there_are() {
    // 130 tiles of 2560 channels, and of 512.
    assert_eq!(SD1.usual_tiles(2), 130 * (2560 + 512) * 36 * 4);
    let many = MemoryNeeds { threads: 1000, ..SD1 };
    assert_eq!(many.usual_tiles(2), (2 * 64 * 64 * 2560 + 512 * 512 * 512) / 16 * 36 * 4);
    assert_eq!(ON_A_CARD.usual_tiles(2), 0);
    let at = |speed, threads| SD1.with_cpu(CpuSettings { speed, threads: NonZero::new(threads) });
    assert_eq!(at(CpuSpeed::Memory, 2).usual_tiles(2), 0);
    for speed in [CpuSpeed::Fast, CpuSpeed::Auto] {
        assert_eq!(at(speed, 1).usual_tiles(2) * 2, SD1.usual_tiles(2));
    }
    let small = MemoryNeeds { unet_channels: 48, ..SD1 };
    let auto = CpuSettings { speed: CpuSpeed::Auto, threads: NonZero::new(2) };
    assert_eq!(small.with_cpu(auto).usual_tiles(2), 0);
}

#[test]
fn exported_graphs_hold_all_scores_of_attention() {
    let exported = MemoryNeeds { holds_scores: true, ..SD1 };
    // Two rows of eight heads of 4096 × 4096 values, twice.
    assert!(exported.usual(2) > SD1.usual(2) + (2 << 30));
    assert!(exported.usual(2) < SD1.usual(2) + (5 << 30));
}

#[test]
fn the_built_in_model_takes_little() {
    let needs = MemoryNeeds::from_files(&ModelFiles::open(None).unwrap().0, &Device::Cpu).unwrap();
    assert_eq!((needs.unet_channels, needs.heads, needs.scale), (48, 4, 8));
    assert!((10_000_000..200_000_000).contains(&needs.usual(2)), "{needs:?}");
}
