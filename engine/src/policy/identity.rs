//! Who a client has proved to be, and which addresses it may send from.
//!
//! Pure and immutable; shared by the session that it belongs to and whoever made it. The sender is bound to the
//! login at MAIL, as Postfix's `reject_sender_login_mismatch` does it: stolen credentials then spoof one
//! address, not the whole organisation. The null reverse-path is everybody's (notifications have it). The
//! From field of a message's header is not looked at here.

/// A login after AUTH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// In the form of [`crate::smtp::sasl::login`].
    pub login: String,
    /// Addresses and patterns that it may send from.
    pub senders: Vec<SenderPattern>,
}

/// What a reverse-path may be; in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderPattern {
    /// `*`
    Any,
    /// `ann@winery.example`
    Address(String),
    /// `@winery.example`: every address of this domain.
    Domain(String),
}

impl SenderPattern {
    /// `None` when it is no pattern.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.to_lowercase();
        match text.rsplit_once('@') {
            None => (text == "*").then_some(Self::Any),
            Some((_, "")) => None,
            Some(("", domain)) => Some(Self::Domain(domain.to_owned())),
            Some(_) => Some(Self::Address(text)),
        }
    }

    /// In any case: nobody tells Ann from ann.
    pub fn holds(&self, sender: &str) -> bool {
        self.holds_lower(&sender.to_lowercase())
    }

    fn holds_lower(&self, sender: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Address(address) => *address == sender,
            Self::Domain(domain) => sender.rsplit_once('@').is_some_and(|(_, of)| of == domain),
        }
    }
}

impl std::fmt::Display for SenderPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Address(address) => f.write_str(address),
            Self::Domain(domain) => write!(f, "@{domain}"),
        }
    }
}

impl Identity {
    /// Whether the login may send from this address, which is canonical, or empty for the null reverse-path.
    pub fn may_send_from(&self, sender: &str) -> bool {
        let lower = sender.to_lowercase();
        sender.is_empty() || self.senders.iter().any(|pattern| pattern.holds_lower(&lower))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S29: a login sends from its own addresses only.
    #[test]
    fn patterns_hold_what_they_say() {
        for (patterns, sender, held) in [
            (&["ann@winery.example"][..], "ann@winery.example", true),
            (&["Ann@Winery.example"], "ANN@winery.example", true),
            (&["ann@winery.example"], "bob@winery.example", false),
            (&["ann@winery.example"], "", true),
            (&[], "", true),
            (&[], "ann@winery.example", false),
            (&["ann@winery.example", "@cellar.example"], "x@cellar.example", true),
            (&["@cellar.example"], "x@sub.cellar.example", false),
            (&["@cellar.example"], "x@notcellar.example", false),
            (&["@cellar.example"], "\"x@winery.example\"@cellar.example", true),
            (&["x@cellar.example"], "\"x@cellar.example\"@winery.example", false),
            (&["*"], "anybody@anywhere.example", true),
        ] {
            let senders = patterns.iter().map(|text| SenderPattern::read(text).expect(text)).collect();
            let identity = Identity { login: "ann".into(), senders };
            assert_eq!(identity.may_send_from(sender), held, "{patterns:?} {sender}");
        }
        for bad in ["", "ann", "ann@", "@"] {
            assert_eq!(SenderPattern::read(bad), None, "{bad}");
        }
    }
}
