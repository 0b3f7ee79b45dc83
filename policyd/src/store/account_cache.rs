//! What a table holds about accounts, remembered for each account key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use outrider_core::sql::DbError;

use super::later::Later;
use crate::cache::{Cache, CacheMeter};
use crate::settings::CacheSettings;

/// Keys read anew by one statement at most.
const MOST: usize = 128;

/// Gives the rows of those keys that have some.
type Fetch<V> = dyn Fn(Vec<String>) -> BoxFuture<'static, Result<HashMap<String, V>, DbError>> + Send + Sync;

/// A cache with one entry for each account key, filled for several keys by one query.
pub(crate) struct AccountCache<V> {
    source: Arc<Source<V>>,
    /// Keys to be read anew.
    due: Later<String>,
}

struct Source<V> {
    values: Cache<String, Arc<V>>,
    fetch: Box<Fetch<V>>,
}

impl<V: Default + Send + Sync + 'static> AccountCache<V> {
    /// `fetch` gives what the table holds about keys.
    pub(crate) fn new<F>(
        settings: &CacheSettings,
        fetch: impl Fn(Vec<String>) -> F + Send + Sync + 'static,
    ) -> AccountCache<V>
    where
        F: Future<Output = Result<HashMap<String, V>, DbError>> + Send + 'static,
    {
        let (lifetime, stale) = (settings.lifetime.duration(), settings.stale.duration());
        let values = Cache::new(settings.entries, lifetime, stale);
        let source = Arc::new(Source { values, fetch: Box::new(move |keys| fetch(keys).boxed()) });
        let again = source.clone();
        let due = Later::new(MOST, move |keys| {
            let source = again.clone();
            async move {
                if let Err(error) = source.read(&keys).await {
                    tracing::debug!(%error, "what is known of accounts could not be read anew");
                }
            }
        });
        AccountCache { source, due }
    }

    /// Counts from now on.
    pub(crate) fn measure(&self, meter: CacheMeter) {
        self.source.values.measure(meter);
    }

    /// The values of all keys; those without rows have the default. While the database is away old values serve, if there is
    /// one for every key.
    pub(crate) async fn get_all(&self, keys: &[String]) -> Result<Vec<Arc<V>>, DbError> {
        let mut known = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (fresh, key) in self.source.values.all_fresh(keys).into_iter().zip(keys) {
            match &fresh {
                None => missing.push(key.clone()),
                Some(fresh) if fresh.due => self.due.begin(key.clone()),
                Some(_) => {}
            }
            known.push(fresh.map(|fresh| fresh.value));
        }
        if missing.is_empty() {
            return Ok(known.into_iter().flatten().collect());
        }
        let found = self.source.read(&missing).await;
        let value = |(known, key): (Option<Arc<V>>, &String)| match (known, &found) {
            (Some(value), _) => Ok(value),
            (None, Ok(found)) => Ok(found.get(key).cloned().unwrap_or_default()),
            (None, Err(error)) if error.is_temporary() => {
                self.source.values.stale(key).ok_or_else(|| error.clone())
            }
            (None, Err(error)) => Err(error.clone()),
        };
        known.into_iter().zip(keys).map(value).collect()
    }
}

impl<V: Default> Source<V> {
    /// Reads what the table holds about keys, and remembers it.
    async fn read(&self, keys: &[String]) -> Result<HashMap<String, Arc<V>>, DbError> {
        // A key may be there twice, as in `alice@example.com.`, whose last suffix is empty like that of everybody.
        let keys: HashSet<&String> = keys.iter().collect();
        let rows = (self.fetch)(keys.iter().map(|&key| key.clone()).collect()).await?;
        let found: HashMap<String, Arc<V>> =
            rows.into_iter().map(|(key, value)| (key, Arc::new(value))).collect();
        for key in keys {
            self.values.put(key.clone(), found.get(key).cloned().unwrap_or_default());
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    /// The keys of each question.
    type Asked = Arc<Mutex<Vec<Vec<String>>>>;

    /// A table in which `a` has one row with a number that grows with each question, and the questions.
    fn table() -> (AccountCache<Vec<usize>>, Asked) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let questions = asked.clone();
        let fetch = move |mut keys: Vec<String>| {
            keys.sort();
            let mut asked = asked.lock().unwrap();
            asked.push(keys);
            let rows = HashMap::from([("a".to_owned(), vec![asked.len()])]);
            async move { Ok(rows) }
        };
        (AccountCache::new(&CacheSettings::default(), fetch), questions)
    }

    async fn get(cache: &AccountCache<Vec<usize>>, keys: &[&str]) -> Vec<Vec<usize>> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        cache.get_all(&keys).await.unwrap().iter().map(|value| value.to_vec()).collect()
    }

    #[tokio::test]
    async fn one_query_for_the_keys_that_are_not_known() {
        let (cache, asked) = table();
        assert_eq!(get(&cache, &["a", "b", "a"]).await, [vec![1], vec![], vec![1]]);
        assert_eq!(get(&cache, &["a", "c"]).await, [vec![1], vec![]]);
        assert_eq!(*asked.lock().unwrap(), [vec!["a", "b"], vec!["c"]]);
    }

    /// Default lifetime: 5 s.
    #[tokio::test(start_paused = true)]
    async fn what_is_used_again_and_again_is_read_anew_in_time() {
        let (cache, asked) = table();
        assert_eq!(get(&cache, &["a", "b"]).await, [vec![1], vec![]]);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(get(&cache, &["a"]).await, [[1]], "nobody waits for it");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(get(&cache, &["a"]).await, [[2]]);
        assert_eq!(*asked.lock().unwrap(), [vec!["a", "b"], vec!["a"]], "what nobody uses is not");
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(get(&cache, &["a", "b"]).await, [vec![2], vec![]], "a is known, and due");
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(*asked.lock().unwrap(), [vec!["a", "b"], vec!["a"], vec!["b"], vec!["a"]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_in_the_background_leaves_what_is_known() {
        let fails = Arc::new(Mutex::new(false));
        let broken = fails.clone();
        let fetch = move |_| {
            let outcome = match *broken.lock().unwrap() {
                true => Err(DbError::TryAgain("down".to_owned())),
                false => Ok(HashMap::from([("a".to_owned(), vec![1])])),
            };
            async move { outcome }
        };
        let cache = AccountCache::new(&CacheSettings::default(), fetch);
        assert_eq!(get(&cache, &["a"]).await, [[1]]);
        *fails.lock().unwrap() = true;
        for seconds in [3, 1, 2] {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            assert_eq!(get(&cache, &["a"]).await, [[1]], "fresh at first, then for want of anything better");
        }
    }
}
