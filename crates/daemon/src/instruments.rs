//! What the daemon itself counts: the build, the phases of its boot, its reloads, its log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metrics::{Counter, Desc, FloatGauge, Gauge, Registry};

use crate::boot::unix_ms;
use crate::cli;

/// The daemon's own metrics.
#[derive(Clone, Debug)]
pub struct DaemonInstruments {
    registry: Registry,
    phases: Arc<Mutex<Vec<(&'static str, FloatGauge)>>>,
    startup_seconds: FloatGauge,
    reload_ok: Gauge,
    reload_at: FloatGauge,
    reloads: Counter,
    reloads_failed: Counter,
}

impl DaemonInstruments {
    /// Registers all of them, and those of the process.
    ///
    /// # Panics
    ///
    /// If they are registered in this registry already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        metrics::process::register(registry);
        registry.info(
            "tinkerbell_daemon_build_info",
            "What this binary was built from",
            &[
                ("version", cli::VERSION),
                ("commit", cli::COMMIT),
                ("features", cli::FEATURES),
            ],
        );
        let reload_ok = registry.gauge(
            "tinkerbell_daemon_config_last_reload_successful",
            "Whether the last reload of the config was applied: 1 if it was, or there was none",
        );
        reload_ok.set(1);
        let reloads = |outcome| {
            registry.counter_with(
                "tinkerbell_daemon_config_reloads_total",
                "Reloads of the config, by whether they were applied",
                &[("outcome", outcome)],
            )
        };
        Self {
            phases: Arc::default(),
            startup_seconds: registry.float_gauge(
                "tinkerbell_daemon_startup_duration_seconds",
                "How long it took from the start of the process until it was ready",
            ),
            reload_ok,
            reload_at: registry.float_gauge(
                "tinkerbell_daemon_config_last_reload_success_timestamp_seconds",
                "When a config was last applied, in Unix time",
            ),
            reloads: reloads("applied"),
            reloads_failed: reloads("rejected"),
            registry: registry.clone(),
        }
    }

    /// Shows what the log and the activity log count by themselves.
    ///
    /// # Panics
    ///
    /// If they are shown in this registry already.
    pub fn watch(&self, log: wal::StatsHandle, pal: &pal::Pal) {
        let pal = pal.clone();
        let names = [
            (
                "tinkerbell_wal_records_total",
                "Records appended to the log",
            ),
            (
                "tinkerbell_wal_frames_total",
                "Frames appended to the log: batches made durable together",
            ),
            (
                "tinkerbell_wal_payload_bytes_total",
                "Bytes of records appended to the log",
            ),
            (
                "tinkerbell_wal_frame_bytes_total",
                "Bytes of frames written to the log, with what frames them",
            ),
            (
                "tinkerbell_wal_syncs_total",
                "Times the log was made durable",
            ),
            (
                "tinkerbell_wal_sync_duration_seconds_total",
                "Time spent making the log durable",
            ),
            ("tinkerbell_pal_events_total", "Events of the activity log"),
            (
                "tinkerbell_pal_events_missed_total",
                "Events that readers were too slow for",
            ),
        ];
        let gauges = [
            ("tinkerbell_wal_segments", "Segments of the log on the disk"),
            (
                "tinkerbell_wal_segment_bytes",
                "Size of the log's segments on the disk",
            ),
            (
                "tinkerbell_wal_last_sync_duration_seconds",
                "How long the log took to be made durable the last time",
            ),
            ("tinkerbell_pal_readers", "Readers of the activity log"),
        ];
        let declared = names
            .iter()
            .map(|(name, help)| Desc::counter(name, help))
            .chain(gauges.iter().map(|(name, help)| Desc::gauge(name, help)))
            .collect();
        self.registry.collect(declared, move |sink| {
            let (log, pal) = (log.read(), pal.stats());
            sink.put("tinkerbell_wal_records_total", log.records);
            sink.put("tinkerbell_wal_frames_total", log.frames);
            sink.put("tinkerbell_wal_payload_bytes_total", log.payload_bytes);
            sink.put("tinkerbell_wal_frame_bytes_total", log.frame_bytes);
            sink.put("tinkerbell_wal_syncs_total", log.syncs);
            sink.put(
                "tinkerbell_wal_sync_duration_seconds_total",
                log.sync_total.as_secs_f64(),
            );
            sink.put("tinkerbell_pal_events_total", pal.published);
            sink.put("tinkerbell_pal_events_missed_total", pal.missed);
            sink.put("tinkerbell_wal_segments", log.segments);
            sink.put("tinkerbell_wal_segment_bytes", log.segment_bytes);
            sink.put(
                "tinkerbell_wal_last_sync_duration_seconds",
                log.sync_last.as_secs_f64(),
            );
            sink.put("tinkerbell_pal_readers", pal.readers as u64);
        });
    }

    /// Notes how long a phase of the boot took.
    pub fn phase(&self, name: &'static str, took: Duration) {
        let gauge = self.registry.float_gauge_with(
            "tinkerbell_daemon_startup_phase_duration_seconds",
            "How long a phase of the last start took",
            &[("phase", name)],
        );
        gauge.set(took.as_secs_f64());
        self.phases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name, gauge));
    }

    /// Notes that the daemon is ready, and how long that took.
    pub fn ready(&self, took: Duration) {
        self.startup_seconds.set(took.as_secs_f64());
        self.reload_at.set(unix_ms() as f64 / 1_000.0);
    }

    /// Notes how a reload went.
    pub fn reloaded(&self, applied: bool) {
        self.reload_ok.set(i64::from(applied));
        if applied {
            self.reloads.inc();
            self.reload_at.set(unix_ms() as f64 / 1_000.0);
        } else {
            self.reloads_failed.inc();
        }
    }
}
