//! Other ways to use a card than the loader's: what each would gain, and what its pictures are like.

use super::Failure;
use super::agreement::compared;
use super::row::Row;
use super::speed::step;
use super::subject::{SEED, Subject};
use crate::runtime::{Attention, CardSettings};

const STEPS: u32 = 5;
const GUIDED: usize = 2;

/// A guided step and a picture in each way, beside the loader's own.
pub(super) fn on_card(subject: &mut Subject) -> Result<Vec<Row>, Failure> {
    const NAME: &str = "ways on a card";
    if subject.runtime.device().is_cpu() {
        return Ok(vec![Row::without(NAME, "this is the CPU")]);
    }
    let usual = CardSettings::default();
    let attention = Attention::ALL.map(|attention| {
        (format!("attention: {attention}"), CardSettings { attention: Some(attention), ..usual })
    });
    let others = [
        ("kernel by kernel".to_owned(), CardSettings { no_captures: true, ..usual }),
        ("bias in the convolution".to_owned(), CardSettings { fuse_conv_bias: true, ..usual }),
    ];
    let size = subject.sizes[0];
    let input = subject.input(size, STEPS);
    let expected = subject.draw(&input, SEED)?;
    let mut rows = Vec::new();
    for (way, settings) in attention.into_iter().chain(others) {
        let measured = subject.on_card(settings, |subject| {
            let picture = subject.draw(&input, SEED)?;
            Ok((step(subject, size, GUIDED)?, picture))
        });
        match measured {
            Ok((time, picture)) => {
                rows.push(Row::new(NAME, time, "ms").size(size).rows(GUIDED).note(way.clone()));
                rows.push(compared(NAME, size, &expected, &picture, &format!("{way}, to the usual way")));
            }
            Err(failure) => rows.push(Row::without(NAME, format!("{way} failed: {failure}"))),
        }
    }
    Ok(rows)
}
