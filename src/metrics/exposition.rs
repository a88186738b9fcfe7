//! The text that Prometheus reads: its exposition format, version 0.0.4.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::{Counter, Gauge, Histogram};

/// Names and values of labels.
pub(crate) type Labels<const COUNT: usize> = [(&'static str, &'static str); COUNT];

/// Where the layers write their numbers.
pub(crate) struct Exposition<'a>(DescriptorEncoder<'a>);

/// The text of what `write` writes.
pub(crate) fn exposed(write: fn(&mut Exposition) -> fmt::Result) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Written(write)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a text takes what is written to it");
    text
}

#[derive(Debug)]
struct Written(fn(&mut Exposition) -> fmt::Result);

impl Collector for Written {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        (self.0)(&mut Exposition(encoder))
    }
}

impl Exposition<'_> {
    /// A counter; `_total` is added to its name.
    pub(crate) fn counter(&mut self, name: &str, help: &str, counter: &Counter) -> fmt::Result {
        self.begin(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&counter.get(), None)
    }

    /// The same with labels.
    pub(crate) fn counters<const COUNT: usize>(
        &mut self,
        name: &str,
        help: &str,
        each: impl IntoIterator<Item = (Labels<COUNT>, u64)>,
    ) -> fmt::Result {
        let mut all = self.begin(name, help, MetricType::Counter)?;
        for (labels, value) in each {
            all.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
        }
        Ok(())
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.begin(name, help, MetricType::Gauge)?.encode_gauge(&value)
    }

    pub(crate) fn gauges<const COUNT: usize>(
        &mut self,
        name: &str,
        help: &str,
        each: impl IntoIterator<Item = (Labels<COUNT>, u64)>,
    ) -> fmt::Result {
        let mut all = self.begin(name, help, MetricType::Gauge)?;
        for (labels, value) in each {
            all.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    pub(crate) fn histogram<const BUCKETS: usize>(
        &mut self,
        name: &str,
        help: &str,
        histogram: &Histogram<BUCKETS>,
    ) -> fmt::Result {
        encode(self.begin(name, help, MetricType::Histogram)?, histogram)
    }

    pub(crate) fn histograms<'h, const COUNT: usize, const BUCKETS: usize>(
        &mut self,
        name: &str,
        help: &str,
        each: impl IntoIterator<Item = (Labels<COUNT>, &'h Histogram<BUCKETS>)>,
    ) -> fmt::Result {
        let mut all = self.begin(name, help, MetricType::Histogram)?;
        for (labels, histogram) in each {
            encode(all.encode_family(&labels)?, histogram)?;
        }
        Ok(())
    }

    fn begin<'n>(&'n mut self, name: &'n str, help: &str, kind: MetricType) -> Result<MetricEncoder<'n>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }
}

fn encode<const BUCKETS: usize>(mut encoder: MetricEncoder, histogram: &Histogram<BUCKETS>) -> fmt::Result {
    let (sum, count, buckets) = histogram.read();
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

impl Gauge {
    /// Its value in a unit of which it counts this many parts.
    pub(crate) fn per(&self, parts: f64) -> f64 {
        self.get() as f64 / parts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Times;

    static HELD: Counter = Counter::new();
    static OPEN: Gauge = Gauge::new();
    static TIMES: Times = Times::of_seconds();
    static SIZES: Histogram<2> = Histogram::new(&[1, 10], 1.0);

    fn write(to: &mut Exposition) -> fmt::Result {
        to.counter("held", "Holds.", &HELD)?;
        to.gauges("open", "Doors.", [([("door", "a"), ("side", "b")], OPEN.get())])?;
        to.histogram("sizes", "Sizes.", &SIZES)?;
        to.histograms("times_seconds", "Times.", [([("what", "hold")], &TIMES)])
    }

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        HELD.add(2);
        OPEN.add(3);
        OPEN.add(-1);
        [0, 1, 2, 10, 11].into_iter().for_each(|size| SIZES.observe(size));
        TIMES.record(Duration::from_micros(250));
        TIMES.record(Duration::from_micros(251));
        TIMES.record(Duration::from_secs(3));
        let text = exposed(write);
        let expected = "# HELP held_total Holds.\n# TYPE held_total counter\nheld_total 2\n\
                        # HELP open Doors.\n# TYPE open gauge\nopen{door=\"a\",side=\"b\"} 2\n\
                        # HELP sizes Sizes.\n# TYPE sizes histogram\n\
                        sizes_bucket{le=\"1\"} 2\nsizes_bucket{le=\"10\"} 4\nsizes_bucket{le=\"+Inf\"} 5\n\
                        sizes_sum 24.0\nsizes_count 5\n";
        assert!(text.starts_with(expected), "{text}");
        for line in [
            "times_seconds_bucket{what=\"hold\",le=\"0.00025\"} 1",
            "times_seconds_bucket{what=\"hold\",le=\"0.0005\"} 2",
            "times_seconds_bucket{what=\"hold\",le=\"2.5\"} 2",
            "times_seconds_bucket{what=\"hold\",le=\"+Inf\"} 3",
            "times_seconds_sum{what=\"hold\"} 3.000501",
            "times_seconds_count{what=\"hold\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
