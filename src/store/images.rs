//! The finished pictures of a job.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Store, StoreError, content};
use crate::domain::{EndpointId, ImageRef, JobId, NewImage, Timestamp};

impl Store {
    /// The PNG file of one picture, if the job is that endpoint's, both still exist and it was not withheld.
    pub fn image(
        &self,
        endpoint: &EndpointId,
        id: &JobId,
        index: u32,
        now: Timestamp,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|db| {
            let png = db
                .prepare_cached(
                    "select images.png from images join jobs on jobs.seq = images.job
                     where jobs.id = :id and jobs.endpoint = :endpoint and jobs.expires_at > :now
                       and images.idx = :index",
                )?
                .query_row(
                    named_params! {
                        ":id": id.as_str(), ":endpoint": endpoint.as_str(), ":now": now.0, ":index": index,
                    },
                    |row| row.get(0),
                )
                .optional()?;
            png.map_or(Ok(None), |png| content::find(db, png))
        })
    }
}

pub(super) fn insert(db: &Connection, job: i64, images: &[NewImage]) -> Result<(), StoreError> {
    for (index, image) in (0_u32..).zip(images) {
        let png = image.png.as_ref().map(|png| content::insert(db, png)).transpose()?;
        db.prepare_cached(
            "insert into images (job, idx, seed, png, withheld)
             values (:job, :index, :seed, coalesce(:png, 0), :png is null)",
        )?
        .execute(named_params! {
            ":job": job, ":index": index, ":seed": image.seed.cast_signed(), ":png": png,
        })?;
    }
    Ok(())
}

pub(super) fn list(db: &Connection, job: i64) -> Result<Vec<ImageRef>, StoreError> {
    let mut statement =
        db.prepare_cached("select idx, seed, withheld from images where job = :job order by idx")?;
    let images = statement.query_map(named_params! {":job": job}, |row| {
        Ok(ImageRef {
            index: row.get(0)?,
            seed: row.get::<_, i64>(1)?.cast_unsigned(),
            withheld: row.get(2)?,
        })
    })?;
    Ok(images.collect::<Result<_, _>>()?)
}

pub(super) fn delete(db: &Connection, job: i64) -> Result<(), StoreError> {
    db.prepare_cached("delete from images where job = :job")?.execute(named_params! {":job": job})?;
    Ok(())
}
