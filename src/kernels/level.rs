//! The processor's instructions, and functions that are compiled for each set of them.

/// Which instructions the processor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What every processor of this architecture has: SSE2 or NEON.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best of this processor.
    pub fn best() -> Self {
        Self::all().pop().unwrap_or(Self::Baseline)
    }

    /// All that this processor has, the best last.
    pub fn all() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let mut levels = vec![Self::Baseline];
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                levels.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    levels.push(Self::Avx512);
                }
            }
            levels
        }
        #[cfg(not(target_arch = "x86_64"))]
        vec![Self::Baseline]
    }

    /// Tiles that the inner loop works on at once: as many as its registers hold sums for.
    pub fn tiles(self) -> usize {
        match self {
            Self::Baseline => 6,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 6,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 12,
        }
    }

    /// Lanes of output channels that it works on at once.
    pub fn width(self) -> usize {
        match self {
            Self::Baseline => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => 1,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => 2,
        }
    }
}

/// Defines a function that runs `$body` with the vectors of a level, compiled for its instructions. `A` is one of
/// Winograd's algorithms.
macro_rules! for_each_level {
    ($(#[$meta:meta])* $name:ident($($argument:ident: $of:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls of functions that need instructions"))]
        pub fn $name<A: Minimal<N, M>, const N: usize, const M: usize>(level: Level, $($argument: $of),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<A: Minimal<N, M>, const N: usize, const M: usize>($($argument: $of),*) {
                $body::<Eight, A, N, M>($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn avx512<A: Minimal<N, M>, const N: usize, const M: usize>($($argument: $of),*) {
                $body::<Sixteen, A, N, M>($($argument),*);
            }
            match level {
                Level::Baseline => $body::<Four, A, N, M>($($argument),*),
                // SAFETY: a `Level` is only made where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2::<A, N, M>($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512::<A, N, M>($($argument),*) },
            }
        }
    };
}
pub(super) use for_each_level;

/// Defines a function that runs `$body`, compiled for a level's instructions, of whose loops the compiler makes vectors. Products
/// are rounded before they are added, so that all levels give the same bits.
macro_rules! at_each_level {
    ($(#[$meta:meta])* $name:ident($($argument:ident: $of:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls of functions that need instructions"))]
        fn $name(level: Level, $($argument: $of),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($argument: $of),*) {
                $body($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,avx512f")]
            fn avx512($($argument: $of),*) {
                $body($($argument),*);
            }
            match level {
                Level::Baseline => $body($($argument),*),
                // SAFETY: a `Level` is only made where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(super) use at_each_level;

/// Defines a function that runs `$body` with the vectors of a level and with tiles of so many rows, compiled for its
/// instructions. The rows are those of the baseline, AVX2 and AVX-512: as many as a processor's registers hold sums for.
macro_rules! in_tiles {
    ($(#[$meta:meta])* $visible:vis $name:ident($($argument:ident: $of:ty),* $(,)?) = $body:ident[$baseline:expr, $avx2:expr, $avx512:expr]) => {
        $(#[$meta])*
        #[cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "calls of functions that need instructions"))]
        $visible fn $name(level: Level, $($argument: $of),*) {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $of),*) {
                $body::<$crate::kernels::x86::Eight, { $avx2 }>($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn avx512($($argument: $of),*) {
                $body::<$crate::kernels::x86::Sixteen, { $avx512 }>($($argument),*);
            }
            match level {
                Level::Baseline => $body::<$crate::kernels::vector::Four, { $baseline }>($($argument),*),
                // SAFETY: a `Level` is only made where the processor has its instructions.
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => unsafe { avx512($($argument),*) },
            }
        }
    };
}
pub(super) use in_tiles;
