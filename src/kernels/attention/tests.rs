use super::*;
use crate::kernels::tests::{random, spawn};

fn run(attention: &Attention<'_>, level: Level) -> Result<Vec<f32>, &'static str> {
    let mut output = vec![f32::NAN; attention.q.len()];
    let each = |tasks: usize, task: &(dyn Fn(usize) + Sync)| (0..tasks).for_each(task);
    attention.run(level, &mut output, &mut Scratch::default(), &Threads { count: 1, run: &each })?;
    Ok(output)
}

/// The definition in float64, of one query and head.
fn expected(attention: &Attention<'_>, image: usize, query: usize, head: usize) -> Vec<f64> {
    let Attention { heads, channels, queries, keys, .. } = *attention;
    let of_head = channels / heads;
    let of = |row: usize| row * channels + head * of_head..row * channels + (head + 1) * of_head;
    let q = &attention.q[of(image * queries + query)];
    let rows = || (image * keys..(image + 1) * keys).map(of);
    let root = f64::from(u32::try_from(of_head).unwrap()).sqrt();
    let product = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() / root;
    let scores: Vec<_> = rows().map(|row| product(&attention.k[row])).collect();
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<_> = scores.iter().map(|score| (score - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let value = |channel: usize| {
        let values = rows().map(|row| f64::from(attention.v[row][channel]));
        values.zip(&weights).map(|(value, weight)| value * weight).sum::<f64>() / sum
    };
    (0..of_head).map(value).collect()
}

/// Tensors of an attention.
struct Tensors {
    /// Batch, queries, keys, heads, channels of a head.
    sizes: [usize; 5],
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Tensors {
    fn new(sizes: [usize; 5], larger: f32) -> Self {
        let [batch, queries, keys, heads, of_head] = sizes;
        let of = |rows: usize, seed| random(batch * rows * heads * of_head, seed);
        let scaled = |values: Vec<f32>| values.iter().map(|value| value * larger).collect();
        Self { sizes, q: scaled(of(queries, 1)), k: scaled(of(keys, 2)), v: of(keys, 3) }
    }

    fn attention(&self) -> Attention<'_> {
        let [batch, queries, keys, heads, of_head] = self.sizes;
        let (q, k, v) = (&self.q, &self.k, &self.v);
        Attention { batch, heads, channels: heads * of_head, queries, keys, q, k, v }
    }
}

fn is_the_definition(tensors: &Tensors, bound: f64) {
    let attention = tensors.attention();
    let [batch, queries, _, heads, of_head] = tensors.sizes;
    // Of many, some.
    let step = (batch * queries * heads / 40).max(1);
    let exact: Vec<_> = (0..batch * queries * heads)
        .step_by(step)
        .map(|at| (at, expected(&attention, at / heads / queries, at / heads % queries, at % heads)))
        .collect();
    for level in Level::all() {
        let results = run(&attention, level).unwrap();
        for (at, exact) in &exact {
            for (result, exact) in results[at * of_head..].iter().zip(exact) {
                let error = (f64::from(*result) - exact).abs();
                assert!(
                    error <= bound,
                    "{:?} at {at}, {level:?}: {result} in place of {exact}",
                    tensors.sizes
                );
            }
        }
    }
}

#[test]
fn it_is_the_definition_on_all_sizes_and_levels() {
    for (queries, keys) in [(1, 1), (1, 7), (7, 1), (64, 77), (77, 64), (100, 257), (33, 1023)] {
        for (heads, of_head) in
            [(1, 8), (8, 40), (2, 64), (2, 80), (1, 160), (1, 512), (3, 5), (1, 1), (2, 171)]
        {
            is_the_definition(&Tensors::new([2, queries, keys, heads, of_head], 2.0), 3e-6);
        }
    }
    is_the_definition(&Tensors::new([1, 1023, 1023, 2, 40], 3.0), 3e-6);
}

#[test]
fn heads_that_are_packed_one_after_the_other_do_not_mix() {
    // Each needs more than half of the room.
    is_the_definition(&Tensors::new([2, 3, 3000, 2, 200], 1.0), 3e-6);
    // Four at a time, and then the last. One alone that is larger than the room.
    is_the_definition(&Tensors::new([1, 3, 3000, 5, 80], 1.0), 3e-6);
    is_the_definition(&Tensors::new([1, 3, 4200, 1, 512], 1.0), 3e-6);
}

#[test]
fn equal_weights_of_many_keys_sum_up_exactly() {
    let mut tensors = Tensors::new([1, 3, 16_384, 1, 8], 1.0);
    tensors.k.fill(0.25);
    tensors.v.fill(1.0);
    for result in run(&tensors.attention(), Level::best()).unwrap() {
        assert!((result - 1.0).abs() < 3e-6, "{result}");
    }
}

#[test]
fn large_scores_are_no_infinities() {
    // Up to some 10⁴; what float32 leaves of them is their error.
    is_the_definition(&Tensors::new([1, 50, 300, 2, 40], 150.0), 2e-2);
    let mut tensors = Tensors::new([1, 50, 300, 2, 40], 150.0);
    for q in &mut tensors.q {
        *q = -q.abs();
    }
    for k in &mut tensors.k {
        *k = k.abs();
    }
    is_the_definition(&tensors, 2e-2);
}

#[test]
fn a_query_has_the_same_results_in_a_batch_and_with_threads() {
    let tensors = Tensors::new([3, 200, 300, 4, 40], 1.0);
    let attention = tensors.attention();
    let all = run(&attention, Level::best()).unwrap();
    let (of_queries, of_keys) = (200 * 160, 300 * 160);
    let second = Attention {
        batch: 1,
        q: &tensors.q[of_queries..2 * of_queries],
        k: &tensors.k[of_keys..2 * of_keys],
        v: &tensors.v[of_keys..2 * of_keys],
        ..attention
    };
    assert!(run(&second, Level::best()).unwrap() == all[of_queries..2 * of_queries]);

    let mut output = vec![0.0; all.len()];
    let threads = Threads { count: 5, run: &spawn };
    let mut scratch = Scratch::default();
    // What a larger call left in memory changes nothing.
    let larger = Tensors::new([1, 70, 700, 1, 170], 1.0);
    larger.attention().run(Level::best(), &mut output[..70 * 170], &mut scratch, &threads).unwrap();
    attention.run(Level::best(), &mut output, &mut scratch, &threads).unwrap();
    assert!(output == all);
}

#[test]
fn what_is_no_number_stays_where_it_belongs() {
    let nan = f32::from_bits(0x7fc0_0155);
    for level in Level::all() {
        // A query's is in its own results, of its head.
        let mut tensors = Tensors::new([2, 40, 300, 2, 16], 1.0);
        tensors.q[(40 + 35) * 32 + 16] = nan;
        let results = run(&tensors.attention(), level).unwrap();
        for (at, result) in results.iter().enumerate() {
            assert_eq!(result.is_nan(), at / 16 == (40 + 35) * 2 + 1, "{at} at {level:?}");
        }
        // A key's, in any block, is in all results of its image and head.
        for key in [0, 280] {
            let mut tensors = Tensors::new([2, 40, 300, 2, 16], 1.0);
            tensors.k[(300 + key) * 32 + 3] = nan;
            let results = run(&tensors.attention(), level).unwrap();
            for (at, result) in results.iter().enumerate() {
                assert_eq!(result.is_nan(), at >= 40 * 32 && at % 32 < 16, "{at} at {level:?}");
            }
        }
        // A value's is in its channel.
        let mut tensors = Tensors::new([2, 40, 300, 2, 16], 1.0);
        tensors.v[299 * 32 + 20] = nan;
        let results = run(&tensors.attention(), level).unwrap();
        for (at, result) in results.iter().enumerate() {
            assert_eq!(result.is_nan(), at < 40 * 32 && at % 32 == 20, "{at} at {level:?}");
        }
    }
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let tensors = Tensors::new([2, 5, 7, 2, 8], 1.0);
    let right = tensors.attention();
    run(&right, Level::best()).unwrap();
    assert!(run(&Attention { queries: 0, q: &[], ..right }, Level::best()).unwrap().is_empty());
    let nothing = Attention { batch: 0, q: &[], k: &[], v: &[], ..right };
    assert!(run(&nothing, Level::best()).unwrap().is_empty());
    for wrong in [
        Attention { heads: 0, ..right },
        Attention { heads: 3, ..right },
        Attention { channels: 0, q: &[], k: &[], v: &[], ..right },
        Attention { keys: 0, k: &[], v: &[], ..right },
        Attention { batch: 1, ..right },
        Attention { batch: usize::MAX, ..right },
        Attention { queries: usize::MAX, ..right },
        Attention { keys: usize::MAX, ..right },
        Attention { q: &tensors.q[1..], ..right },
        Attention { k: &tensors.k[1..], ..right },
        Attention { v: &tensors.v[1..], ..right },
    ] {
        assert!(run(&wrong, Level::best()).is_err());
    }
}

#[test]
fn images_that_are_alike_get_what_each_would_get() {
    let mut tensors = Tensors::new([4, 37, 20, 2, 11], 1.0);
    // The third is the first, and the fourth the second but for its last value.
    for values in [&mut tensors.q, &mut tensors.k, &mut tensors.v] {
        let half = values.len() / 2;
        values.copy_within(..half, half);
    }
    *tensors.v.last_mut().unwrap() += 1.0;
    let attention = tensors.attention();
    let alike = |image, other| attention.are_alike(image, other);
    assert!(alike(2, 0) && !alike(3, 1) && !alike(1, 0) && !alike(3, 0));
    for level in Level::all() {
        let together = run(&attention, level).unwrap();
        for (image, results) in together.chunks(together.len() / 4).enumerate() {
            let Attention { q, k, v, .. } = attention;
            let [q, k, v] = [q, k, v].map(|values| &values[image * values.len() / 4..][..values.len() / 4]);
            let alone = run(&Attention { batch: 1, q, k, v, ..attention }, level).unwrap();
            assert!(alone == results, "{image}, {level:?}");
        }
    }
}
