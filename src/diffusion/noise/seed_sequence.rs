//! numpy's `SeedSequence`: seeds for independent generators from one number and a place in a tree.
//!
//! It follows `numpy/random/bit_generator.pyx`, after O'Neill's `randutils`. Words are those of `generate_state`.

/// How many words torchsde keeps (`pool_size`).
const POOL: usize = 24;

/// The first word of `SeedSequence(entropy, spawn_key=spawn_key, pool_size=24).generate_state(n)`, which does not depend
/// on n.
pub(super) fn first_word(entropy: u64, spawn_key: &[u64]) -> u32 {
    let mut words = words(entropy);
    if !spawn_key.is_empty() {
        words.resize(POOL.max(words.len()), 0);
        words.extend(spawn_key.iter().flat_map(|&key| self::words(key)));
    }
    let mut hash = Hash { constant: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    let mut pool = [0; POOL];
    for (i, slot) in pool.iter_mut().enumerate() {
        *slot = hash.of(words.get(i).copied().unwrap_or(0));
    }
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            pool[to] = mix(pool[to], hash.of(pool[from]));
        }
    }
    for &word in words.iter().skip(POOL) {
        for slot in &mut pool {
            *slot = mix(*slot, hash.of(word));
        }
    }
    Hash { constant: 0x8b51_f9dd, multiplier: 0x58f3_8ded }.of(pool[0])
}

/// The 32-bit words of a number, the lowest first; one for 0.
fn words(number: u64) -> Vec<u32> {
    #[expect(clippy::cast_possible_truncation, reason = "the two words")]
    let [low, high] = [number as u32, (number >> 32) as u32];
    if high == 0 { vec![low] } else { vec![low, high] }
}

/// A multiplicative hash whose constant changes with every word.
struct Hash {
    constant: u32,
    multiplier: u32,
}

impl Hash {
    fn of(&mut self, word: u32) -> u32 {
        let word = word ^ self.constant;
        self.constant = self.constant.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.constant);
        word ^ (word >> 16)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let mixed = x.wrapping_mul(0xca01_f9dd).wrapping_sub(y.wrapping_mul(0x4973_f715));
    mixed ^ (mixed >> 16)
}
