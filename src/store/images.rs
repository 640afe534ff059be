//! The finished pictures of a job.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Store, StoreError, content};
use crate::domain::{
    DrawnPrompts, EndpointId, ImagePlace, ImageRef, JobId, NewImage, StoredImage, Timestamp,
};

impl Store {
    /// The PNG file of one picture, if the job belongs to `endpoint`, has not expired, and the picture is stored here.
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
                       and images.idx = :index and not images.stored_elsewhere",
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
    let mut images = (0_u32..).zip(images);
    images.try_for_each(|(index, image)| {
        let row = Row { seed: image.seed, prompts: image.prompts.as_ref(), stored_elsewhere: false };
        insert_one(db, (job, index), row, image.png.as_deref())
    })
}

pub(super) fn insert_stored(db: &Connection, job: i64, images: &[StoredImage]) -> Result<(), StoreError> {
    let mut images = (0_u32..).zip(images);
    images.try_for_each(|(index, image)| {
        let row = Row { seed: image.seed, prompts: image.prompts.as_ref(), stored_elsewhere: true };
        insert_one(db, (job, index), row, image.url.as_ref().map(String::as_bytes))
    })
}

/// What a picture's row has beside its content.
struct Row<'a> {
    seed: u64,
    prompts: Option<&'a DrawnPrompts>,
    stored_elsewhere: bool,
}

/// `content`: the picture or its URL; none if the picture is withheld.
fn insert_one(
    db: &Connection,
    (job, index): (i64, u32),
    Row { seed, prompts, stored_elsewhere }: Row<'_>,
    content: Option<&[u8]>,
) -> Result<(), StoreError> {
    let content = content.map(|bytes| content::insert(db, bytes)).transpose()?;
    let prompts = prompts.and_then(|prompts| serde_json::to_vec(prompts).ok());
    let prompts = prompts.map(|json| content::insert(db, &json)).transpose()?;
    db.prepare_cached(
        "insert into images (job, idx, seed, png, withheld, stored_elsewhere, prompts)
         values (:job, :index, :seed, coalesce(:content, 0), :content is null, :stored_elsewhere, :prompts)",
    )?
    .execute(named_params! {
        ":job": job, ":index": index, ":seed": seed.cast_signed(), ":content": content,
        ":stored_elsewhere": stored_elsewhere, ":prompts": prompts.unwrap_or(0),
    })?;
    Ok(())
}

pub(super) fn list(db: &Connection, job: i64) -> Result<Vec<ImageRef>, StoreError> {
    let mut statement = db.prepare_cached(
        "select idx, seed, png, withheld, stored_elsewhere, prompts from images where job = :job order by idx",
    )?;
    let mut rows = statement.query(named_params! {":job": job})?;
    let mut images = Vec::new();
    while let Some(row) = rows.next()? {
        let place = match (row.get("withheld")?, row.get("stored_elsewhere")?) {
            (true, _) => ImagePlace::Withheld,
            (false, true) => ImagePlace::Bucket(content::text(db, row.get("png")?)?),
            (false, false) => ImagePlace::Here,
        };
        let seed = row.get::<_, i64>("seed")?.cast_unsigned();
        let prompts = match row.get("prompts")? {
            0 => None,
            content => serde_json::from_str(&content::text(db, content)?).ok(),
        };
        images.push(ImageRef { index: row.get("idx")?, seed, place, prompts });
    }
    Ok(images)
}

pub(super) fn delete(db: &Connection, job: i64) -> Result<(), StoreError> {
    db.prepare_cached("delete from images where job = :job")?.execute(named_params! {":job": job})?;
    Ok(())
}
