//! What a server says of DNSSEC, heard where hickory-resolver itself does not listen: with `dnssec =
//! "trust-ad"` each question carries the AD bit (RFC 6840 section 5.7), and an answer that carries it is
//! marked as authentic, record by record (RFC 4035 section 3.2.3).
//!
//! Lives on the service thread, between the resolver and its sockets, and passes on what is
//! [relevant](super::relevant).

use std::net::IpAddr;
use std::pin::Pin;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, Stream, StreamExt};
use hickory_resolver::config::ConnectionConfig;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::DnsExchange;
use hickory_resolver::net::{DnsHandle, NetError};
use hickory_resolver::proto::dnssec::Proof;
use hickory_resolver::proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::{ConnectionProvider, PoolContext};

use super::relevant::{keep_briefly_if_large, keep_relevant};

/// Makes the connections to a server.
#[derive(Clone)]
pub(super) struct Listening {
    trust_ad: bool,
    inner: TokioRuntimeProvider,
}

impl Listening {
    pub fn new(trust_ad: bool) -> Self {
        Self { trust_ad, inner: TokioRuntimeProvider::default() }
    }
}

impl ConnectionProvider for Listening {
    type Conn = Exchange;
    type FutureConn = BoxFuture<'static, Result<Exchange, NetError>>;
    type RuntimeProvider = TokioRuntimeProvider;

    fn new_connection(
        &self,
        ip: IpAddr,
        config: &ConnectionConfig,
        cx: &PoolContext,
    ) -> Result<Self::FutureConn, NetError> {
        let trust_ad = self.trust_ad;
        let connecting = self.inner.new_connection(ip, config, cx)?;
        Ok(async move { Ok(Exchange { trust_ad, inner: connecting.await? }) }.boxed())
    }

    fn runtime_provider(&self) -> &TokioRuntimeProvider {
        &self.inner
    }
}

/// A connection to a server.
#[derive(Clone)]
pub(super) struct Exchange {
    trust_ad: bool,
    inner: DnsExchange<TokioRuntimeProvider>,
}

impl DnsHandle for Exchange {
    type Response = Pin<Box<dyn Stream<Item = Result<DnsResponse, NetError>> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, mut request: DnsRequest) -> Self::Response {
        let trust_ad = self.trust_ad;
        request.metadata.authentic_data |= trust_ad;
        let name = request.queries.first().map(|query| query.name().clone());
        Box::pin(self.inner.send(request).map(move |response| {
            let mut response = response?;
            if let Some(name) = &name {
                keep_relevant(name, &mut response);
            }
            let bytes = response.as_buffer().len();
            keep_briefly_if_large(bytes, &mut response);
            if trust_ad && response.metadata.authentic_data {
                response.answers.iter_mut().for_each(|record| record.proof = Proof::Secure);
            }
            Ok(response)
        }))
    }
}
