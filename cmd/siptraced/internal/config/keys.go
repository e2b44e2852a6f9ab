package config

import (
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"siptraced/cmd/siptraced/internal/ingest"
	"siptraced/cmd/siptraced/internal/rules"
	"siptraced/cmd/siptraced/internal/spool"
)

// key is one setting beside the siptrace parameters.
type key struct {
	name string
	// list: the value is a list of strings; anything else is one text, read by
	// set. def is written as --set has it.
	list bool
	def  string
	doc  string
	set  func(*Config, []string) error
}

// keys lists every setting beside the siptrace parameters, in the order of the
// README.
var keys = slices.Concat(ownKeys, mirrorKeys, rpcKeys)

var ownKeys = []key{
	{"kamailio_cfg", false, "", "the proxy's configuration; --kamailio-cfg wins", func(*Config, []string) error { return nil }},
	{"listen", true, "udp:127.0.0.1:9060,tcp:127.0.0.1:9060", "where HEP and SIP come in: udp:, tcp:, tls:host:port", func(c *Config, v []string) error {
		c.Ingest.Listen = nil
		for _, s := range v {
			a, err := ingest.ParseAddress(s)
			if err != nil {
				return err
			}
			c.Ingest.Listen = append(c.Ingest.Listen, a)
		}
		return nil
	}},
	{"local", true, "", "the proxy's own sockets, beside its listen= lines", func(c *Config, v []string) error {
		for _, s := range v {
			if err := c.addLocal(s); err != nil {
				return err
			}
		}
		return nil
	}},
	{"timezone", false, "Local", "time zone of time_stamp: Local, UTC, or a name such as America/New_York", func(c *Config, v []string) (err error) {
		c.Store.Location, err = time.LoadLocation(v[0])
		return err
	}},
	{"receive_buffer", false, "8MiB", "receive buffer of a UDP socket", bytesInto(func(c *Config, n int64) { c.Ingest.ReceiveBuffer = int(n) }, 4<<10, 1<<30)},
	{"max_connections", false, "1024", "TCP and TLS connections open at once", intInto(func(c *Config, n int64) { c.Ingest.MaxConnections = int(n) }, 1, 1<<20)},
	{"tls.certificate", false, "", "PEM file with the certificate of tls: entries", textInto(func(c *Config) *string { return &c.TLSCertificate })},
	{"tls.private_key", false, "", "PEM file with its key", textInto(func(c *Config) *string { return &c.TLSPrivateKey })},
	{"tls.client_ca", false, "", "PEM file with the authorities of client certificates; set: clients need one", textInto(func(c *Config) *string { return &c.TLSClientCA })},
	{"spool.dir", false, "siptraced.spool", "directory of the spool", textInto(func(c *Config) *string { return &c.Spool.Dir })},
	{"spool.nats", false, "", "nats://host,host: a NATS cluster in place of the embedded engine", textInto(func(c *Config) *string { return &c.Spool.NATS })},
	{"spool.credentials", false, "", "NATS credentials file", textInto(func(c *Config) *string { return &c.Spool.Credentials })},
	{"spool.ca", false, "", "PEM file with the authorities of the cluster's certificates", textInto(func(c *Config) *string { return &c.Spool.CA })},
	{"spool.replicas", false, "3", "copies of each stream in a cluster", intInto(func(c *Config, n int64) { c.Spool.Replicas = int(n) }, 1, 5)},
	{"spool.shards", false, "2", "streams, and so writers per sink", intInto(func(c *Config, n int64) { c.Spool.Shards = int(n) }, 1, 64)},
	{"spool.sync_interval", false, "1s", "how often the spool is synced to disk; always: before each acknowledgement", func(c *Config, v []string) error {
		if v[0] == "always" {
			c.Spool.SyncInterval = 0
			return nil
		}
		return durationInto(func(c *Config, d time.Duration) { c.Spool.SyncInterval = d }, time.Millisecond, time.Hour)(c, v)
	}},
	{"spool.max_bytes", false, "8GiB", "what may wait for the sinks; 0: no bound", bytesInto(func(c *Config, n int64) { c.Spool.MaxBytes = n }, 0, math.MaxInt64)},
	{"spool.max_age", false, "0s", "how long it may wait; 0s: no bound", durationInto(func(c *Config, d time.Duration) { c.Spool.MaxAge = d }, 0, math.MaxInt64)},
	{"spool.full", false, spool.RefuseNew, "at max_bytes: " + spool.RefuseNew + " or " + spool.DropOldest, textInto(func(c *Config) *string { return &c.Spool.Full })},
	{"spool.batch_bytes", false, "256KiB", "a batch closes at this size", bytesInto(func(c *Config, n int64) { c.Spool.BatchBytes = int(n) }, 1<<10, 4<<20)},
	{"spool.batch_age", false, "10ms", "or at this age", durationInto(func(c *Config, d time.Duration) { c.Spool.BatchAge = d }, time.Millisecond, time.Minute)},
	{"store.batch_rows", false, "4000", "a transaction closes at so many rows", intInto(func(c *Config, n int64) { c.Store.BatchRows = int(n) }, 1, 100000)},
	{"store.batch_bytes", false, "8MiB", "or bytes of messages", bytesInto(func(c *Config, n int64) { c.Store.BatchBytes = int(n) }, 64<<10, 64<<20)},
	{"store.batch_age", false, "5ms", "or at this age", durationInto(func(c *Config, d time.Duration) { c.Store.BatchAge = d }, 0, time.Minute)},
	{"store.reject_file", false, "siptraced.rejects.jsonl", "takes the rows that the database refuses", textInto(func(c *Config) *string { return &c.Store.RejectFile })},
	{"openser", false, "0", "1: kamailio_cfg is an openser.cfg of OpenSER 1.0 and 1.1, where traced_user_avp is 6843 if not set", func(c *Config, v []string) error {
		on, err := strconv.ParseBool(v[0])
		if err != nil {
			return fmt.Errorf("%q is neither 1 nor 0", v[0])
		}
		c.OpenSER = on
		return nil
	}},
	{"event_route", false, "", "file with event_route[siptrace:msg] in Kamailio's syntax, or its text; wins over the one of kamailio.cfg", textInto(func(c *Config) *string { return &c.EventRoute })},
	{"rules", true, "", "list of rules, or a file with one", func(*Config, []string) error { return nil }},
	{"rules_state", false, "siptraced.rules.json", "keeps rules that were started by RPC over a restart; empty: they end with the process", textInto(func(c *Config) *string { return &c.Rules.StateFile })},
	{"tables", true, "", "patterns of the tables that rules may name; default: those whose names begin with that of the parameter table", func(c *Config, v []string) error {
		c.Rules.Tables = v
		return rules.CheckTables(v)
	}},
	{"log.level", false, "info", "debug, info, warn or error", func(c *Config, v []string) error {
		var l slog.Level
		if err := l.UnmarshalText([]byte(v[0])); err != nil {
			return fmt.Errorf("%q is none of debug, info, warn, error", v[0])
		}
		c.LogLevel = l
		return nil
	}},
	{"memory_limit", false, "96MiB", "soft limit of the Go runtime's memory", bytesInto(func(c *Config, n int64) { c.MemoryLimit = n }, 32<<20, math.MaxInt64)},
	{"shutdown_timeout", false, "30s", "how long SIGTERM waits for the sinks", durationInto(func(c *Config, d time.Duration) { c.ShutdownTimeout = d }, 0, time.Hour)},
}

func textInto(field func(*Config) *string) func(*Config, []string) error {
	return func(c *Config, v []string) error { *field(c) = v[0]; return nil }
}

func intInto(set func(*Config, int64), lo, hi int64) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		n, err := strconv.ParseInt(v[0], 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", v[0])
		}
		if n < lo || n > hi {
			return fmt.Errorf("%d is out of range: %d to %d", n, lo, hi)
		}
		set(c, n)
		return nil
	}
}

func durationInto(set func(*Config, time.Duration), lo, hi time.Duration) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		d, err := time.ParseDuration(v[0])
		if err != nil {
			return fmt.Errorf("%q is not a duration: write 500ms, 10s, 24h", v[0])
		}
		if d < lo || d > hi {
			return fmt.Errorf("%s is out of range: %s to %s", d, lo, hi)
		}
		set(c, d)
		return nil
	}
}

var units = []struct {
	suffix string
	size   int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}

func parseBytes(s string) (int64, error) {
	for _, u := range units {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.size {
			break
		}
		return n * u.size, nil
	}
	return 0, fmt.Errorf("%q is not a size: write bytes, or 64KiB, 8MiB, 2GiB", s)
}

func bytesInto(set func(*Config, int64), lo, hi int64) func(*Config, []string) error {
	return func(c *Config, v []string) error {
		n, err := parseBytes(v[0])
		if err != nil {
			return err
		}
		if n < lo || n > hi {
			return fmt.Errorf("%d is out of range: %d to %d bytes", n, lo, hi)
		}
		set(c, n)
		return nil
	}
}
