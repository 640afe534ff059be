//! The roles of tensors in a module, and which kind of change has which of them.

use std::collections::BTreeMap;

/// The role of a tensor in its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// From the module's input to the rank.
    Down,
    /// From the rank to the module's output.
    Up,
    /// Between the two, where a convolution is split into three (CP, Tucker).
    Mid,
    /// Goes to the module's bias.
    UpBias,
    /// The same for a table of embeddings, the other way round.
    EmbeddingDown,
    EmbeddingUp,
    /// The change is multiplied by alpha and divided by the rank.
    Alpha,
    /// Multiplies the change in the place of alpha divided by the rank, as in A1111.
    Scale,
    /// Multiplies the change as well, as in LyCORIS.
    Scalar,
    /// DoRA's lengths, in the shape of the weight with ones.
    DoraScale,
    /// The same in PEFT, always one for each output.
    Magnitude,
    Hada1A,
    Hada1B,
    Hada2A,
    Hada2B,
    Hada1T,
    Hada2T,
    Kron1,
    Kron1A,
    Kron1B,
    Kron2,
    Kron2A,
    Kron2B,
    Kron2T,
    GloraA1,
    GloraA2,
    GloraB1,
    GloraB2,
    GloraBm,
    /// LyCORIS' (IA)³: a factor for each channel, less one.
    Channels,
    /// Whether those are the channels of the input.
    OnInput,
    /// PEFT's (IA)³: the factors themselves.
    Ia3,
    Diff,
    DiffBias,
    OftBlocks,
    /// The rotations themselves, in LyCORIS before 2.1.
    OftDiag,
    Rescale,
    PeftOft,
    PeftBoft,
    PeftBoftScale,
}

/// How a module's weight is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    LowRank,
    Embedding,
    Hadamard,
    Kronecker,
    Glora,
    Channels,
    PeftChannels,
    Difference,
    Rotation,
    PeftRotation,
    PeftButterfly,
}

/// The names of a module's tensors.
pub type Tensors = BTreeMap<Role, String>;

impl Role {
    /// The kind that alone has this role. None for those that several kinds have, and for the bias.
    fn kind(self) -> Option<Kind> {
        Some(match self {
            Self::Down | Self::Up | Self::Mid | Self::UpBias => Kind::LowRank,
            Self::EmbeddingDown | Self::EmbeddingUp => Kind::Embedding,
            Self::Hada1A | Self::Hada1B | Self::Hada2A | Self::Hada2B | Self::Hada1T | Self::Hada2T => {
                Kind::Hadamard
            }
            Self::Kron1
            | Self::Kron1A
            | Self::Kron1B
            | Self::Kron2
            | Self::Kron2A
            | Self::Kron2B
            | Self::Kron2T => Kind::Kronecker,
            Self::GloraA1 | Self::GloraA2 | Self::GloraB1 | Self::GloraB2 | Self::GloraBm => Kind::Glora,
            Self::Channels | Self::OnInput => Kind::Channels,
            Self::Ia3 => Kind::PeftChannels,
            Self::Diff => Kind::Difference,
            Self::OftBlocks | Self::OftDiag | Self::Rescale => Kind::Rotation,
            Self::PeftOft => Kind::PeftRotation,
            Self::PeftBoft | Self::PeftBoftScale => Kind::PeftButterfly,
            Self::Alpha | Self::Scale | Self::Scalar | Self::DoraScale | Self::Magnitude | Self::DiffBias => {
                return None;
            }
        })
    }
}

impl Role {
    /// What people call a file with a tensor in this role.
    pub fn owner(self) -> &'static str {
        match self {
            Self::DoraScale | Self::Magnitude => "a LoRA (DoRA)",
            role => role.kind().map_or("a LoRA", Kind::name),
        }
    }
}

impl Kind {
    /// The kind of a module's change, if its tensors change its weight. The error is a sentence about two kinds in one
    /// module, or about a factor without anything that it multiplies.
    pub fn of(module: &str, tensors: &Tensors) -> Result<Option<Self>, String> {
        let mut found: Option<(Self, &String)> = None;
        for (role, name) in tensors {
            match (role.kind(), found) {
                (Some(kind), Some((other, first))) if kind != other => {
                    return Err(format!("its tensors {first} and {name} change {module} in two ways"));
                }
                (Some(kind), None) => found = Some((kind, name)),
                _ => {}
            }
        }
        match found {
            Some((kind, _)) => Ok(Some(kind)),
            None if tensors.contains_key(&Role::DiffBias) => Ok(None),
            None => Err(format!("it has a factor but no matrices for {module}")),
        }
    }

    /// What people call it.
    fn name(self) -> &'static str {
        match self {
            Self::LowRank | Self::Embedding => "a LoRA",
            Self::Hadamard => "a LoRA (LoHa)",
            Self::Kronecker => "a LoRA (LoKr)",
            Self::Glora => "a LoRA (GLoRA)",
            Self::Channels | Self::PeftChannels => "a LoRA ((IA)³)",
            Self::Difference => "a LoRA (whole differences)",
            Self::Rotation | Self::PeftRotation => "a LoRA (OFT)",
            Self::PeftButterfly => "a LoRA (BOFT)",
        }
    }

    /// Whether alpha is a factor of its change. In OFT it limits the rotation, elsewhere it means nothing.
    pub fn has_alpha(self) -> bool {
        matches!(self, Self::LowRank | Self::Embedding | Self::Hadamard | Self::Kronecker | Self::Glora)
    }

    /// Whether DoRA may follow it.
    pub fn takes_dora(self) -> bool {
        matches!(self, Self::LowRank | Self::Hadamard | Self::Kronecker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(roles: &[Role]) -> Tensors {
        roles.iter().map(|role| (*role, format!("{role:?}"))).collect()
    }

    #[test]
    fn the_roles_tell_the_kind() {
        for (roles, kind) in [
            (&[Role::Down, Role::Up, Role::Alpha, Role::DoraScale, Role::DiffBias][..], Some(Kind::LowRank)),
            (&[Role::Kron1A, Role::Kron2, Role::Kron1B], Some(Kind::Kronecker)),
            (&[Role::Channels, Role::OnInput], Some(Kind::Channels)),
            (&[Role::OftBlocks, Role::Alpha], Some(Kind::Rotation)),
            (&[Role::DiffBias], None),
        ] {
            assert_eq!(Kind::of("m", &tensors(roles)), Ok(kind), "{roles:?}");
        }
    }

    #[test]
    fn two_kinds_and_none_are_refused() {
        assert_eq!(
            Kind::of("m", &tensors(&[Role::Down, Role::Up, Role::Diff])).unwrap_err(),
            "its tensors Down and Diff change m in two ways"
        );
        assert_eq!(
            Kind::of("m", &tensors(&[Role::Alpha])).unwrap_err(),
            "it has a factor but no matrices for m"
        );
    }
}
