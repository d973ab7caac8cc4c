//! A TCP proxy before the broker that loses, holds and delays requests on purpose.
//!
//! It reads frames and rewrites none: the broker has a listener of its own for clients of the
//! proxy and tells them the proxy's address (see [`LocalKafka::start_proxied`]). Every connection
//! has two threads, one for each direction.
//!
//! [`LocalKafka::start_proxied`]: crate::broker::LocalKafka::start_proxied

mod fault;
mod frame;

pub use fault::{DroppedResponse, HeldFrame, HoldForm, ProxyError};
pub use frame::{Frame, api_key, contains};

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fault::{Action, Predicate, Rule};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The proxy. Dropping it closes all its connections.
#[derive(Debug)]
pub struct KafkaProxy {
    address: SocketAddr,
    bootstrap: String,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    broker: SocketAddr,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    delays: BTreeMap<i16, Duration>,
    connections: HashMap<u64, Arc<Connection>>,
    next_connection: u64,
    refuses: bool,
    closed: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("rules", &self.rules.len())
            .field("delays", &self.delays)
            .field("connections", &self.connections.len())
            .field("refuses", &self.refuses)
            .finish_non_exhaustive()
    }
}

/// A client's connection and the one to the broker that goes with it.
struct Connection {
    client: TcpStream,
    broker: TcpStream,
    /// Requests whose responses are to be thrown away, by correlation id.
    dropped: Mutex<HashMap<i32, Rule>>,
}

impl Connection {
    fn close(&self) {
        // A side that is closed already is no fault.
        drop(self.client.shutdown(Shutdown::Both));
        drop(self.broker.shutdown(Shutdown::Both));
    }

    fn dropped(&self) -> MutexGuard<'_, HashMap<i32, Rule>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KafkaProxy {
    /// Forwards what comes to `listener` to the broker at `broker`.
    ///
    /// # Errors
    /// The listener has no address, or no thread can be started.
    pub fn start(listener: TcpListener, broker: SocketAddr) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { broker, state: Mutex::default() });
        let accepting = Arc::clone(&shared);
        let acceptor = thread::Builder::new()
            .name("proxy-accept".to_owned())
            .spawn(move || accepting.accept(&listener))?;
        Ok(Self { address, bootstrap: address.to_string(), shared, acceptor: Some(acceptor) })
    }

    /// Where clients of the proxy start: `host:port`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Keeps the next request with this api key from the broker.
    pub fn hold_next(&self, api_key: i16, form: HoldForm) -> HeldFrame {
        self.hold_next_matching(api_key, form, |_| true)
    }

    /// Keeps the next request with this api key for which `matches` holds from the broker;
    /// `matches` sees header and body.
    pub fn hold_next_matching(
        &self,
        api_key: i16,
        form: HoldForm,
        matches: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> HeldFrame {
        let (rule, slot) = Rule::new(api_key, Box::new(matches), Action::Hold(form));
        self.shared.state().rules.push(rule);
        HeldFrame { slot, broker: self.shared.broker }
    }

    /// Lets the broker execute the next request with this api key, then closes the connection in
    /// place of responding.
    pub fn drop_response(&self, api_key: i16) -> DroppedResponse {
        self.drop_response_matching(api_key, |_| true)
    }

    /// As [`drop_response`](Self::drop_response), for the next request for which `matches` holds.
    pub fn drop_response_matching(
        &self,
        api_key: i16,
        matches: impl Fn(&[u8]) -> bool + Send + 'static,
    ) -> DroppedResponse {
        let matches: Predicate = Box::new(matches);
        let (rule, slot) = Rule::new(api_key, matches, Action::DropResponse);
        self.shared.state().rules.push(rule);
        DroppedResponse { slot }
    }

    /// Lets every request with this api key wait before it goes to the broker, and all that follow
    /// it on its connection; zero ends it.
    pub fn delay(&self, api_key: i16, duration: Duration) {
        let mut state = self.shared.state();
        if duration.is_zero() {
            state.delays.remove(&api_key);
        } else {
            state.delays.insert(api_key, duration);
        }
    }

    /// Closes all connections; clients may connect anew.
    pub fn cut_all(&self) {
        for connection in self.shared.state().connections.values() {
            connection.close();
        }
    }

    /// Whether new connections are closed as soon as they are made.
    pub fn refuse(&self, refuses: bool) {
        self.shared.state().refuses = refuses;
    }
}

impl Drop for KafkaProxy {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.cut_all();
        // Wakes the acceptor, which then sees that the proxy is closed.
        let woken = TcpStream::connect(self.address).is_ok();
        if let Some(acceptor) = self.acceptor.take().filter(|_| woken) {
            drop(acceptor.join());
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.state().closed {
                return;
            }
            if self.state().refuses {
                continue;
            }
            if let Err(error) = client.and_then(|client| self.connect(client)) {
                tracing::debug!(%error, "a connection through the proxy was not made");
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let broker = TcpStream::connect_timeout(&self.broker, CONNECT_TIMEOUT)?;
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let connection = Arc::new(Connection { client, broker, dropped: Mutex::default() });
        let id = {
            let mut state = self.state();
            if state.closed || state.refuses {
                return Ok(());
            }
            state.next_connection += 1;
            let id = state.next_connection;
            state.connections.insert(id, Arc::clone(&connection));
            id
        };
        let responses = Arc::clone(&connection);
        spawn("proxy-response", move || forward_responses(&responses), &connection)?;
        let requests = Arc::clone(&connection);
        let shared = Arc::clone(self);
        let forward = move || {
            let ended = shared.forward_requests(&requests);
            shared.state().connections.remove(&id);
            ended
        };
        spawn("proxy-request", forward, &connection)
    }

    fn forward_requests(&self, connection: &Connection) -> io::Result<()> {
        let (mut client, mut broker) = (&connection.client, &connection.broker);
        while let Some(frame) = Frame::read(&mut client)? {
            let (delay, rule) = self.fault_for(&frame);
            if let Some(delay) = delay {
                thread::sleep(delay);
            }
            match rule.map(|rule| (rule.action, rule)) {
                None => broker.write_all(&frame.to_wire())?,
                Some((Action::Hold(HoldForm::KeepOpen), rule)) => rule.strike(frame),
                Some((Action::Hold(HoldForm::Close), rule)) => {
                    connection.close();
                    rule.strike(frame);
                }
                Some((Action::DropResponse, rule)) => {
                    if let Some(id) = frame.request_id() {
                        connection.dropped().insert(id, rule);
                    }
                    broker.write_all(&frame.to_wire())?;
                }
            }
        }
        Ok(())
    }

    /// Takes the first rule for the frame; those whose handle is gone are removed on the way.
    fn fault_for(&self, frame: &Frame) -> (Option<Duration>, Option<Rule>) {
        let mut state = self.state();
        let delay = frame.api_key().and_then(|api_key| state.delays.get(&api_key).copied());
        state.rules.retain(Rule::is_armed);
        let found = state.rules.iter().position(|rule| rule.is_for(frame));
        (delay, found.map(|index| state.rules.remove(index)))
    }
}

fn forward_responses(connection: &Connection) -> io::Result<()> {
    let (mut client, mut broker) = (&connection.client, &connection.broker);
    while let Some(frame) = Frame::read(&mut broker)? {
        let rule = frame.response_id().and_then(|id| connection.dropped().remove(&id));
        if let Some(rule) = rule {
            connection.close();
            rule.strike(frame);
            return Ok(());
        }
        client.write_all(&frame.to_wire())?;
    }
    Ok(())
}

/// Runs one direction of a connection; when it ends, so does the other.
fn spawn(
    name: &str,
    forward: impl FnOnce() -> io::Result<()> + Send + 'static,
    connection: &Arc<Connection>,
) -> io::Result<()> {
    let connection = Arc::clone(connection);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        if let Err(error) = forward() {
            tracing::debug!(%error, "a connection through the proxy ended");
        }
        connection.close();
    })?;
    Ok(())
}
