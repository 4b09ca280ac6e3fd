//! Which certificate a client gets, by the name that it asks for (RFC 6066 section 3).

use std::collections::HashMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::files;
use crate::config::{CertificatePair, Tls};

#[derive(Debug)]
pub(super) struct Names {
    by_name: HashMap<String, Arc<CertifiedKey>>,
    /// For every other name and for clients that ask for none: many mail servers do not, and none would
    /// gain from being turned away.
    general: Arc<CertifiedKey>,
}

impl Names {
    pub fn load(tls: &Tls) -> Result<Self, String> {
        let load = |pair: &CertificatePair| files::certified_key(pair).map_err(|fault| fault.sentence);
        let mut by_name = HashMap::new();
        for named in &tls.named {
            let key = load(&named.pair)?;
            by_name.extend(named.names.iter().map(|name| (name.clone(), key.clone())));
        }
        Ok(Self { by_name, general: load(&tls.pair)? })
    }

    /// The certificate that a client has been shown who asked for this name.
    pub fn certificate(&self, name: Option<&str>) -> Option<CertificateDer<'static>> {
        let shown = name.map_or(&self.general, |name| self.find(name));
        shown.cert.first().cloned()
    }

    fn find(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let wildcard = || Some(format!("*.{}", name.split_once('.')?.1));
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(&wildcard()?));
        found.unwrap_or(&self.general)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(hello.server_name().map_or(&self.general, |name| self.find(name)).clone())
    }
}
