//! How sessions use the processor: which convolutions, and how many threads.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

use super::cores::physical_cores;

/// What the user asked of the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuSettings {
    pub speed: CpuSpeed,
    /// Threads of a session. None means one for each core that this process may use.
    pub threads: Option<NonZero<usize>>,
}

/// Which convolutions a processor computes with: ONNX Runtime's in blocks of channels, or our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CpuSpeed {
    /// Our own where they are clearly faster, which is timed once for each processor.
    #[default]
    Auto,
    /// Our own.
    Fast,
    /// ONNX Runtime's, which take the least memory.
    Memory,
}

impl CpuSettings {
    /// For one of so many workers that draw at the same time: each gets its part of the cores, unless the user said how many.
    #[must_use]
    pub fn for_one_of(self, workers: u32) -> Self {
        let workers = NonZero::new(workers as usize).unwrap_or(NonZero::<usize>::MIN);
        let part = || NonZero::new(physical_cores() / workers).unwrap_or(NonZero::<usize>::MIN);
        // One worker has all cores. It should not matter who counted them.
        let threads = self.threads.or_else(|| (workers.get() > 1).then(part));
        Self { threads, ..self }
    }

    /// The threads of a session.
    pub fn thread_count(self) -> usize {
        self.threads.map_or_else(physical_cores, NonZero::get)
    }
}

impl FromStr for CpuSpeed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "fast" => Ok(Self::Fast),
            "memory" => Ok(Self::Memory),
            _ => Err("it should be auto, fast or memory".to_owned()),
        }
    }
}

impl fmt::Display for CpuSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fast => "fast",
            Self::Memory => "memory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_as_they_are_written() {
        for speed in [CpuSpeed::Auto, CpuSpeed::Fast, CpuSpeed::Memory] {
            assert_eq!(speed.to_string().parse(), Ok(speed));
        }
        assert!("slow".parse::<CpuSpeed>().unwrap_err().contains("auto, fast or memory"));
    }

    #[test]
    fn workers_share_the_cores_unless_their_threads_are_counted() {
        let cores = physical_cores();
        let threads = |settings: CpuSettings, workers| settings.for_one_of(workers).thread_count();
        let usual = CpuSettings::default();
        for (workers, expected) in
            [(0, cores), (1, cores), (2, (cores / 2).max(1)), (u32::try_from(cores).unwrap() + 1, 1)]
        {
            assert_eq!(threads(usual, workers), expected, "{workers} of {cores}");
        }
        let counted = CpuSettings { threads: NonZero::new(3), ..usual };
        assert_eq!((threads(counted, 1), threads(counted, 2)), (3, 3));
    }
}
