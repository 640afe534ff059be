//! Attention: for each query, the mean of the values, weighted by the softmax of the query's products with the keys.
//!
//! A block of queries meets one block of keys after the other, with a maximum and a sum that grow (Milakov and Gimelshein,
//! "Online normalizer calculation for softmax", 2018; Dao et al., "`FlashAttention`", 2022). So the scores never leave the
//! first cache. The lanes of all vectors are queries: a maximum or a sum over keys is then one over vectors, and a head needs no
//! multiple of anything. First the keys and values of some heads are packed, then all threads work on their queries.
//!
//! The order of all sums depends on the numbers of keys and of channels alone: not on the batch, and not on the threads.
//!
//! Of a few images, those that are alike are computed once. Both halves of a guided step are alike until the prompt comes in, so
//! that its first and largest attention takes half the time.

use std::sync::{Mutex, PoisonError};

use self::block::{Block, Head, OfThread, Shape, TASK, attend, pack};
use super::convolution::Threads;
use super::level::Level;
use super::vector::LANES;

mod block;
mod rows;
mod softmax;

/// Packed keys and values that are in memory at once, 8 MB. They stay in the third cache. One head may need more.
const PACKED: usize = 2 << 20;

/// Images that are compared with each other, at most.
const COMPARED: usize = 64;

/// Channels of a head at most: each thread holds some hundred rows of them. Those of Stable Diffusion have 512 at most.
const WIDEST: usize = 4096;

/// The tensors of an attention.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    pub batch: usize,
    pub heads: usize,
    /// Of all heads, side by side.
    pub channels: usize,
    pub queries: usize,
    pub keys: usize,
    /// [batch][queries][channels]
    pub q: &'a [f32],
    /// [batch][keys][channels]
    pub k: &'a [f32],
    /// [batch][keys][channels]
    pub v: &'a [f32],
}

/// Memory that later calls use again.
#[derive(Default)]
pub struct Scratch {
    packed: Vec<f32>,
    of_threads: Vec<Mutex<OfThread>>,
}

impl Attention<'_> {
    /// Writes `output`: [batch][queries][channels]. The error says what does not fit.
    pub fn run(
        &self,
        level: Level,
        output: &mut [f32],
        scratch: &mut Scratch,
        threads: &Threads<'_>,
    ) -> Result<(), &'static str> {
        let Self { batch, heads, channels, queries, keys, .. } = *self;
        let count = |rows: usize| batch.checked_mul(rows)?.checked_mul(channels);
        for (is_right, what) in [
            (
                heads > 0 && channels > 0 && channels.is_multiple_of(heads),
                "the channels are no multiple of the heads",
            ),
            (channels / heads.max(1) <= WIDEST, "a head is too wide"),
            (keys > 0, "there are no keys"),
            (Some(self.q.len()) == count(queries), "the queries have another size"),
            (Some(self.k.len()) == count(keys), "the keys have another size"),
            (Some(self.v.len()) == count(keys), "the values have another size"),
            (output.len() == self.q.len(), "the output has another size"),
        ] {
            if !is_right {
                return Err(what);
            }
        }
        if output.is_empty() {
            return Ok(());
        }
        let shape = Shape::new(level, channels / heads, keys);
        let Scratch { packed: room, of_threads } = scratch;
        of_threads.resize_with(threads.count.max(of_threads.len()), Mutex::default);
        let of_head = shape.of_head();
        let at_once = (PACKED / of_head).clamp(1, batch * heads);
        let missing = (at_once * of_head).saturating_sub(room.len());
        room.try_reserve(missing).map_err(|_| "its keys need more memory than there is")?;
        room.resize(room.len() + missing, 0.0);

        let compared = if batch <= COMPARED { batch } else { 0 };
        let mut twins: Vec<_> =
            (0..compared).map(|image| (0..image).find(|earlier| self.are_alike(image, *earlier))).collect();
        twins.resize(batch, None);
        let images: Vec<_> = (0..batch).filter(|image| twins[*image].is_none()).collect();

        // Heads write side by side into the same rows.
        let rows: Vec<_> = output
            .chunks_mut(queries * channels)
            .flat_map(|image| image.chunks_mut(TASK * channels))
            .map(Mutex::new)
            .collect();
        let tasks = queries.div_ceil(TASK);
        let all = images.len() * heads;
        for first in (0..all).step_by(at_once) {
            let here = at_once.min(all - first);
            let head = |index: usize| {
                let (image, head) = (images[(first + index) / heads], (first + index) % heads);
                Head { image, first: head * shape.channels, row: channels }
            };
            let blocks: Vec<_> =
                room[..here * of_head].chunks_mut(shape.of_block()).map(Mutex::new).collect();
            threads.each(blocks.len(), &|index, _| {
                let (index, block) = (index / shape.blocks(), index % shape.blocks());
                let mut packed =
                    blocks[index * shape.blocks() + block].lock().unwrap_or_else(PoisonError::into_inner);
                let (head, keys) = (head(index), shape.keys_of(block));
                let part = |values| head.rows(values, self.keys, keys.clone());
                pack(level, &shape, &head, [part(self.k), part(self.v)], &mut packed);
            });
            drop(blocks);
            let packed = &*room;
            threads.each(here * tasks, &|task, thread| {
                let (index, task) = (task / tasks, task % tasks);
                let head = head(index);
                let queries = task * TASK..self.queries.min((task + 1) * TASK);
                let block = Block {
                    shape: &shape,
                    head: &head,
                    queries: head.rows(self.q, self.queries, queries),
                    packed: &packed[index * of_head..][..of_head],
                    rows: &rows[head.image * tasks + task],
                };
                attend(level, &block, &mut of_threads[thread].lock().unwrap_or_else(PoisonError::into_inner));
            });
        }
        drop(rows);
        let of_image = queries * channels;
        for (image, twin) in twins.iter().enumerate() {
            if let Some(twin) = twin {
                output.copy_within(twin * of_image..(twin + 1) * of_image, image * of_image);
            }
        }
        // One large head is no reason to hold so much for ever.
        room.truncate(PACKED);
        room.shrink_to(PACKED);
        Ok(())
    }

    /// Whether two images have the same bits. Most images already differ in their first values.
    fn are_alike(&self, image: usize, other: usize) -> bool {
        [(self.k, self.keys), (self.v, self.keys), (self.q, self.queries)].into_iter().all(
            |(values, rows)| {
                let length = rows * self.channels;
                let of = |image: usize| values[image * length..][..length].as_chunks::<LANES>();
                let ((ours, our_rest), (theirs, their_rest)) = (of(image), of(other));
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
                ours.iter().zip(theirs).all(|(a, b)| a.map(f32::to_bits) == b.map(f32::to_bits))
                    && our_rest.iter().zip(their_rest).all(same)
            },
        )
    }
}

#[cfg(test)]
mod tests;
