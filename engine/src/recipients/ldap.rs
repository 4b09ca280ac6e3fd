//! The table of a directory: one search for each recipient (RFC 4511; filters as RFC 4515 escapes them).
//!
//! Lives on the service thread. One connection carries the searches of all shards, [`SEARCHES_AT_ONCE`] at a time,
//! and is made anew when it breaks. An error is about the directory, which is then down for its mail;
//! what only one entry suffers from is [`Holder::Unclear`].

use super::{Holder, folded, without_detail};
use crate::auth::way::{Way, connect};
use crate::config::{LdapTable, smart_host};
use crate::resolve::error::{ResolveError, ResolveErrorKind};
use crate::resolve::service::{Answer, Resolvers};
use ldap3::{LdapError, Scope, SearchEntry, SearchOptions};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Prevents a burst of recipients from flooding the directory.
const SEARCHES_AT_ONCE: usize = 16;
const SECRET_OCTETS_MAX: u64 = 4096;
/// An entry that nobody can follow is looked at again after this.
const UNCLEAR_VALID: Duration = Duration::from_secs(60);

pub struct Directory {
    settings: Arc<LdapTable>,
    detail: Option<char>,
    way: Way,
    connection: Mutex<Option<ldap3::Ldap>>,
    /// One connects, the others wait for it.
    connecting: tokio::sync::Mutex<()>,
    places: Semaphore,
}

impl Directory {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The authorities cannot be read.
    pub fn new(
        settings: &Arc<LdapTable>,
        detail: Option<char>,
        resolvers: &Arc<Resolvers>,
        resolver: Option<usize>,
    ) -> Result<Self, String> {
        Ok(Self {
            way: Way::new(&settings.server, settings.authorities.as_deref(), resolvers, resolver)?,
            settings: settings.clone(),
            detail,
            connection: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            places: Semaphore::new(SEARCHES_AT_ONCE),
        })
    }

    /// Which server holds the mailbox of an address, within the patience of the settings.
    pub async fn holder(&self, address: &str) -> Answer<Holder> {
        let found = tokio::time::timeout(self.settings.patience, self.find(address)).await;
        let seconds = self.settings.patience.as_secs_f32();
        let found = found.unwrap_or_else(|_| {
            // Whatever it waits for, another connection may do better.
            self.keep(None);
            Err(self.told(&format_args!("no answer within {seconds} seconds")))
        });
        let (result, valid_for) = match found {
            Ok(holder) => {
                let valid_for = match holder {
                    Holder::Host(_) | Holder::RouteHosts => self.settings.keep,
                    Holder::Unknown => self.settings.keep_absent,
                    Holder::Unclear(_) => UNCLEAR_VALID,
                };
                (Ok(holder), valid_for)
            }
            Err(text) => (Err(ResolveError { kind: ResolveErrorKind::Temporary, text }), Duration::ZERO),
        };
        Answer { result, valid_for }
    }

    async fn find(&self, address: &str) -> Result<Holder, String> {
        let _place = self.places.acquire().await.map_err(|error| error.to_string())?;
        let Some(address) = folded(address) else { return Ok(Holder::Unknown) };
        let holder = self.search(&address).await?;
        match without_detail(&address, self.detail) {
            Some(short) if holder == Holder::Unknown => self.search(&short).await,
            _ => Ok(holder),
        }
    }

    async fn search(&self, address: &str) -> Result<Holder, String> {
        let kept = self.kept();
        let was_kept = kept.is_some();
        let mut ldap = match kept {
            Some(ldap) => ldap,
            None => self.connect().await?,
        };
        match self.ask(&mut ldap, address).await {
            Err(error) if is_broken(&error) && was_kept => {
                self.keep(None);
                let mut ldap = self.connect().await?;
                self.judged(self.ask(&mut ldap, address).await)
            }
            found => self.judged(found),
        }
    }

    fn judged(&self, found: Result<Holder, LdapError>) -> Result<Holder, String> {
        match found {
            Err(LdapError::LdapResult { result }) if !is_about_the_server(result.rc) => {
                let text = self.told(&format_args!("result code {}: {}", result.rc, result.text));
                Ok(Holder::Unclear(text.into()))
            }
            Err(error) => {
                self.keep(None);
                Err(self.told(&error))
            }
            Ok(holder) => Ok(holder),
        }
    }

    async fn ask(&self, ldap: &mut ldap3::Ldap, address: &str) -> Result<Holder, LdapError> {
        let LdapTable { base, filter, attribute, .. } = &*self.settings;
        let filter = filter.replace("{recipient}", &ldap3::ldap_escape(address));
        ldap.with_search_options(SearchOptions::new().sizelimit(2));
        let found = ldap.search(base, Scope::Subtree, &filter, [attribute.as_str()]).await?;
        // sizeLimitExceeded: more than the two that were asked for.
        let entries = if found.1.rc == 4 { found.0 } else { found.success()?.0 };
        let mut entries = entries.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
        let Some(entry) = entries.next() else { return Ok(Holder::Unknown) };
        let unclear = |text: String| Ok(Holder::Unclear(self.told(&text).into()));
        if entries.next().is_some() {
            return unclear(format!("more than one entry for {address}"));
        }
        let SearchEntry { dn, attrs, .. } = SearchEntry::construct(entry);
        let values = attrs.into_iter().filter(|(name, _)| name.eq_ignore_ascii_case(attribute));
        let mut values: Vec<String> = values.flat_map(|(_, values)| values).collect();
        // An order that does not change from one answer to the next.
        values.sort_unstable();
        match values.first() {
            // It is there, and says nothing of a server.
            None => Ok(Holder::RouteHosts),
            Some(host) => match smart_host(host) {
                Ok(host) => Ok(Holder::Host(Arc::new(host))),
                Err(wrong) => unclear(format!("{attribute} of {dn}: {wrong}")),
            },
        }
    }

    async fn connect(&self) -> Result<ldap3::Ldap, String> {
        let _turn = self.connecting.lock().await;
        if let Some(ldap) = self.kept() {
            return Ok(ldap);
        }
        let mut ldap = connect(&self.way, self.settings.starttls).await?;
        if !self.settings.bind_dn.is_empty() {
            let password = match &self.settings.bind_password_file {
                Some(path) => crate::auth::secret_text(path, SECRET_OCTETS_MAX)?,
                None => String::new(),
            };
            let password = Zeroizing::new(password);
            let bound =
                ldap.simple_bind(&self.settings.bind_dn, password.trim_end_matches(['\r', '\n'])).await;
            bound.and_then(|result| result.success()).map_err(|error| self.told(&error))?;
        }
        self.keep(Some(ldap.clone()));
        Ok(ldap)
    }

    fn kept(&self) -> Option<ldap3::Ldap> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, ldap: Option<ldap3::Ldap>) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = ldap;
    }

    fn told(&self, error: &dyn std::fmt::Display) -> String {
        format!("LDAP {}:{}: {error}", self.settings.server.host, self.settings.server.port)
    }
}

/// Whether another connection may do better.
fn is_broken(error: &LdapError) -> bool {
    !matches!(error, LdapError::LdapResult { .. } | LdapError::FilterParsing)
}

/// Result codes (RFC 4511 appendix A.2) that every search would get now.
fn is_about_the_server(code: u32) -> bool {
    // timeLimitExceeded, strongerAuthRequired, adminLimitExceeded, confidentialityRequired, noSuchObject (the
    // base), inappropriateAuthentication, invalidCredentials, insufficientAccessRights, busy, unavailable,
    // unwillingToPerform.
    matches!(code, 3 | 8 | 11 | 13 | 32 | 48..=53)
}
