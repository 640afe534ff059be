//! Pages that differ only in the address at which the reader reached this server. Each is rendered once for an address.

use std::sync::{Arc, Mutex, PoisonError};

use actix_web::web;

use crate::http::request::{ApiError, Compressed};

/// How many addresses are remembered. A server has few names; a client may invent any number.
const MOST: usize = 8;

/// More do not count. So an address that nobody uses any more gives way to others in the end.
const MOST_USES: u64 = 1000;

/// One page, for some addresses.
#[derive(Default)]
pub(super) struct Rendered(Mutex<Vec<Known>>);

struct Known {
    base: String,
    page: Arc<Compressed>,
    /// How often it was asked for. Addresses that a client has invented drive out each other, not those in use.
    uses: u64,
}

impl Rendered {
    /// The page for readers at `base`. `render` runs on a thread that serves no requests.
    pub async fn at(
        &self,
        base: String,
        render: impl FnOnce(&str) -> Result<String, ApiError> + Send + 'static,
    ) -> Result<Arc<Compressed>, ApiError> {
        if let Some(known) = self.find(&base) {
            return Ok(known);
        }
        let work = move || render(&base).map(|text| (base, Arc::new(Compressed::new(text))));
        let (base, page) = web::block(work).await.map_err(|error| {
            tracing::error!(%error, "a page could not be rendered");
            ApiError::Internal
        })??;
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|known| known.base != base);
        if pages.len() == MOST
            && let Some(least) = (0..MOST).min_by_key(|index| pages[*index].uses)
        {
            pages.remove(least);
            // So that an address that was in use once does not stay for ever.
            pages.iter_mut().for_each(|known| known.uses = known.uses.saturating_sub(1));
        }
        pages.push(Known { base, page: Arc::clone(&page), uses: 1 });
        Ok(page)
    }

    fn find(&self, base: &str) -> Option<Arc<Compressed>> {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = pages.iter_mut().find(|known| known.base == base)?;
        known.uses = (known.uses + 1).min(MOST_USES);
        Some(Arc::clone(&known.page))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::rt::System;

    use super::*;

    #[test]
    fn a_page_is_rendered_once_for_an_address_and_few_addresses_are_remembered() {
        System::new().block_on(async {
            let page = Rendered::default();
            let at = |base: usize| page.at(base.to_string(), |base| Ok(base.to_owned()));
            let first = at(0).await.unwrap();
            for _ in 0..200 {
                assert!(Arc::ptr_eq(&first, &at(0).await.unwrap()));
            }
            for base in 1..100 {
                at(base).await.unwrap();
            }
            assert_eq!(page.0.lock().unwrap().len(), MOST);
            assert!(page.find("99").is_some() && page.find("1").is_none());
            assert!(Arc::ptr_eq(&first, &at(0).await.unwrap()), "it was in use");
            assert!(page.at(String::new(), |_| Err(ApiError::Internal)).await.is_err());
        });
    }
}
