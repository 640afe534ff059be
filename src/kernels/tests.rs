//! What the tests of the kernels share.

/// Numbers from −1 to 1 with a triangular distribution.
pub fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f32::from(u16::try_from(state >> 48).unwrap()) / 65536.0
    };
    (0..count).map(|_| next() - next()).collect()
}

/// Runs each task on a thread of its own.
pub fn spawn(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    std::thread::scope(|scope| {
        for index in 0..tasks {
            scope.spawn(move || task(index));
        }
    });
}
