//! How topics are configured.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::client::NativeClient;
use rdkafka::error::RDKafkaErrorCode as Code;

use super::super::{Event, Failure, check, text};
use super::{ask, no_memory};

/// One setting of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super::super) struct Configured {
    /// The topic.
    pub(in super::super::super) topic: String,
    /// The setting's value, or why it is not told.
    pub(in super::super::super) value: Result<Option<String>, Failure>,
}

/// The resources of a question, freed in the end.
struct Resources(Vec<*mut rd::rd_kafka_ConfigResource_t>);

impl Resources {
    fn new(topics: &[&CStr], setting: &CStr) -> Result<Self, Failure> {
        let mut resources = Self(Vec::with_capacity(topics.len()));
        let of = rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_TOPIC;
        for topic in topics {
            // SAFETY: the name is alive and is copied; what is returned is ours.
            let resource = unsafe { rd::rd_kafka_ConfigResource_new(of, topic.as_ptr()) };
            let resource = NonNull::new(resource).ok_or_else(no_memory)?.as_ptr();
            resources.0.push(resource);
            // SAFETY: resource and name are alive. A setting that is named is asked for; its value
            // is not sent, and must only not be null.
            check(unsafe {
                rd::rd_kafka_ConfigResource_set_config(resource, setting.as_ptr(), c"".as_ptr())
            })?;
        }
        Ok(resources)
    }
}

impl Drop for Resources {
    fn drop(&mut self) {
        for resource in &self.0 {
            // SAFETY: it is ours and is not used again.
            unsafe { rd::rd_kafka_ConfigResource_destroy(*resource) }
        }
    }
}

/// Asks for one setting of topics.
pub(in super::super::super) fn describe_setting(
    client: &NativeClient,
    topics: &[&CStr],
    setting: &CStr,
    timeout: Duration,
) -> Result<Vec<Configured>, Failure> {
    let mut resources = Resources::new(topics, setting)?;
    let of = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
    let answer = ask(client, of, timeout, |options, queue| {
        let (first, len) = (resources.0.as_mut_ptr(), resources.0.len());
        // SAFETY: all are alive, and librdkafka copies the resources.
        unsafe { rd::rd_kafka_DescribeConfigs(client.ptr(), first, len, options, queue) }
    })?;
    Ok(configured(&answer, setting))
}

fn configured(answer: &Event, setting: &CStr) -> Vec<Configured> {
    let mut len = 0;
    // SAFETY: the event is alive, is of this kind, and owns the resources.
    unsafe {
        let result = rd::rd_kafka_event_DescribeConfigs_result(answer.0.as_ptr());
        let resources = rd::rd_kafka_DescribeConfigs_result_resources(result, &raw mut len);
        if resources.is_null() {
            return Vec::new();
        }
        let resources = std::slice::from_raw_parts(resources, len);
        resources.iter().map(|resource| read_resource(*resource, setting)).collect()
    }
}

/// # Safety
/// `resource` is alive.
unsafe fn read_resource(
    resource: *const rd::rd_kafka_ConfigResource_t,
    setting: &CStr,
) -> Configured {
    let mut len = 0;
    // SAFETY: the caller's promise; name, error and entries belong to the resource and are copied.
    unsafe {
        let topic = text(rd::rd_kafka_ConfigResource_name(resource));
        let code = Code::from(rd::rd_kafka_ConfigResource_error(resource));
        if code != Code::NoError {
            let words = text(rd::rd_kafka_ConfigResource_error_string(resource));
            return Configured { topic, value: Err(Failure::of(code, words)) };
        }
        let entries = rd::rd_kafka_ConfigResource_configs(resource, &raw mut len);
        let entries: &[*const rd::rd_kafka_ConfigEntry_t] =
            if entries.is_null() { &[] } else { std::slice::from_raw_parts(entries, len) };
        let named = |entry: &&*const rd::rd_kafka_ConfigEntry_t| {
            let name: *const c_char = rd::rd_kafka_ConfigEntry_name(**entry);
            !name.is_null() && CStr::from_ptr(name) == setting
        };
        let value = entries.iter().find(named).map(|entry| rd::rd_kafka_ConfigEntry_value(*entry));
        Configured { topic, value: Ok(value.map(|value| text(value))) }
    }
}
