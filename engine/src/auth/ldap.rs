//! Passwords in a directory: the entry is found, then a bind as it is tried (RFC 4513 section 5.1).
//!
//! Lives on the service thread. One connection searches, as the service's own user; a few others bind, one
//! login after the other. A login without an entry costs a bind as somebody who does not exist, so that both
//! take as long. A broken connection is made anew once.

use super::https::Way;
use super::{Failure, Verified, random, unavailable};
use crate::config::{Find, Ldap as Settings};
use crate::resolve::service::Resolvers;
use crate::smtp::sasl::Secret;
use ldap3::{LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchEntry, SearchOptions, StdStream};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// Binds at a time, and connections kept for them.
pub(super) const AT_ONCE: usize = 8;
const SECRET_OCTETS_MAX: u64 = 4096;
/// Result codes (RFC 4511 appendix A.2) that say: not with this password.
const REFUSED: [u32; 6] = [
    19, // constraintViolation: locked by policy
    32, // noSuchObject
    34, // invalidDNSyntax: a login that makes none
    48, // inappropriateAuthentication: an entry without a password
    49, // invalidCredentials
    53, // unwillingToPerform: a disabled account
];

pub(super) struct Directory {
    settings: Settings,
    way: Way,
    searches: Mutex<Option<ldap3::Ldap>>,
    binds: Mutex<Vec<ldap3::Ldap>>,
    places: Semaphore,
}

/// An entry: its name, and addresses that it may send from.
struct Entry {
    dn: String,
    addresses: Vec<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Directory {
    pub fn new(
        settings: &Settings,
        resolvers: &Arc<Resolvers>,
        resolver: Option<usize>,
    ) -> Result<Self, String> {
        Ok(Self {
            way: Way::new(&settings.server, settings.authorities.as_deref(), resolvers, resolver)?,
            settings: settings.clone(),
            searches: Mutex::default(),
            binds: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
        })
    }

    pub async fn verify(&self, login: &str, password: &Secret) -> Result<Verified, Failure> {
        let _place = self.places.acquire().await.map_err(unavailable)?;
        let entry = match &self.settings.find {
            Find::Template(template) => {
                let dn = template.replace("{login}", &ldap3::dn_escape(login));
                Some(Entry { dn, addresses: Vec::new() })
            }
            Find::Search { .. } => self.find(login).await?,
        };
        let password = password.expose_text().filter(|text| !text.is_empty()).ok_or(Failure::Refused)?;
        let nobody = || format!("cn={}", u64::from_ne_bytes(random()));
        let dn = entry.as_ref().map_or_else(nobody, |entry| entry.dn.clone());
        let bound = self.bind(&dn, password).await?;
        match entry.filter(|entry| bound && !entry.dn.is_empty()) {
            Some(Entry { addresses, .. }) => {
                Ok(Verified { login: login.to_owned(), addresses, signature: None })
            }
            None => Err(Failure::Refused),
        }
    }

    async fn find(&self, login: &str) -> Result<Option<Entry>, Failure> {
        let kept = lock(&self.searches).clone();
        if let Some(mut ldap) = kept {
            match self.search(&mut ldap, login).await {
                Err(error) if is_broken(&error) => *lock(&self.searches) = None,
                found => return found.map_err(|error| self.told(&error)),
            }
        }
        let mut ldap = self.connect().await?;
        if let Find::Search { bind_dn, bind_password_file, .. } = &self.settings.find
            && !bind_dn.is_empty()
        {
            let password = match bind_password_file {
                Some(path) => super::watched::text(path, SECRET_OCTETS_MAX).map_err(Failure::Unavailable)?,
                None => String::new(),
            };
            let password = Zeroizing::new(password);
            let bound = ldap.simple_bind(bind_dn, password.trim_end_matches(['\r', '\n'])).await;
            bound.and_then(|result| result.success()).map_err(|error| self.told(&error))?;
        }
        let found = self.search(&mut ldap, login).await.map_err(|error| self.told(&error))?;
        *lock(&self.searches) = Some(ldap);
        Ok(found)
    }

    /// The one entry; none also when there are two, of which nobody knows which is meant.
    async fn search(&self, ldap: &mut ldap3::Ldap, login: &str) -> Result<Option<Entry>, LdapError> {
        let Find::Search { base, filter, .. } = &self.settings.find else { return Ok(None) };
        let filter = filter.replace("{login}", &ldap3::ldap_escape(login));
        let attribute = self.settings.addresses.as_deref().unwrap_or("1.1");
        ldap.with_search_options(SearchOptions::new().sizelimit(2));
        let found = ldap.search(base, Scope::Subtree, &filter, [attribute]).await?;
        // sizeLimitExceeded: more than the two that were asked for.
        let entries = if found.1.rc == 4 { Vec::new() } else { found.success()?.0 };
        let mut entries = entries.into_iter().filter(|entry| !entry.is_ref() && !entry.is_intermediate());
        let (Some(entry), None) = (entries.next(), entries.next()) else { return Ok(None) };
        let SearchEntry { dn, attrs, .. } = SearchEntry::construct(entry);
        let named = |name: &str| name.eq_ignore_ascii_case(attribute);
        let values = attrs.into_iter().filter(|(name, _)| named(name)).flat_map(|(_, values)| values);
        // Exchange writes proxyAddresses as `smtp:ann@winery.example`.
        let address = |value: String| match value.split_once(':') {
            Some((kind, rest)) if kind.eq_ignore_ascii_case("smtp") => rest.to_owned(),
            _ => value,
        };
        Ok(Some(Entry { dn, addresses: values.map(address).collect() }))
    }

    /// Whether the directory takes the password for this name.
    async fn bind(&self, dn: &str, password: &str) -> Result<bool, Failure> {
        let kept = lock(&self.binds).pop();
        if let Some(mut ldap) = kept {
            match ldap.simple_bind(dn, password).await {
                Err(error) if is_broken(&error) => {}
                result => return self.bound(ldap, result),
            }
        }
        let mut ldap = self.connect().await?;
        let result = ldap.simple_bind(dn, password).await;
        self.bound(ldap, result)
    }

    fn bound(
        &self,
        ldap: ldap3::Ldap,
        result: Result<ldap3::LdapResult, LdapError>,
    ) -> Result<bool, Failure> {
        let result = result.map_err(|error| self.told(&error))?;
        lock(&self.binds).push(ldap);
        match result.rc {
            0 => Ok(true),
            code if REFUSED.contains(&code) => Ok(false),
            code => Err(self.told(&format_args!("result code {code}: {}", result.text))),
        }
    }

    async fn connect(&self) -> Result<ldap3::Ldap, Failure> {
        connect(&self.way, self.settings.starttls).await.map_err(unavailable)
    }

    fn told(&self, error: &dyn std::fmt::Display) -> Failure {
        unavailable(format_args!("LDAP {}:{}: {error}", self.way.server.host, self.way.server.port))
    }
}

/// A connection to a directory, with TLS as its URL and `starttls` say.
///
/// # Errors
/// What went wrong, and with which server.
pub async fn connect(way: &Way, starttls: bool) -> Result<ldap3::Ldap, String> {
    let stream = way.tcp().await.and_then(|tcp| tcp.into_std().map_err(|error| error.to_string()));
    let stream = stream.map_err(|error| format!("LDAP {error}"))?;
    let mut settings = LdapConnSettings::new().set_std_stream(StdStream::Tcp(stream)).set_starttls(starttls);
    if let Some(tls) = &way.tls {
        settings = settings.set_config(tls.clone());
    }
    let server = &way.server;
    let scheme = if server.tls { "ldaps" } else { "ldap" };
    let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
    let url = format!("{scheme}://{host}:{}", server.port);
    let (connection, ldap) =
        LdapConnAsync::with_settings(settings, &url).await.map_err(|error| format!("{url}: {error}"))?;
    tokio::spawn(async move { drop(connection.drive().await) });
    Ok(ldap)
}

/// Whether another connection may do better.
fn is_broken(error: &LdapError) -> bool {
    !matches!(error, LdapError::LdapResult { .. } | LdapError::FilterParsing)
}
