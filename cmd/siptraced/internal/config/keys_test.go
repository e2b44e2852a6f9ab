package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"siptraced/compat/siptrace"
)

// Every key is set in every place, by each of its names, and knows its origin.
func TestEveryKey(t *testing.T) {
	samples := map[string]string{
		"listen": "udp:127.0.0.1:1", "local": "udp:192.0.2.1:5060", "tls.certificate": "", "tls.private_key": "x", "tls.client_ca": "x", "rules.tables": "t_*",
		"spool.nats": "nats://h", "spool.monitor": "http://h:8222", "rpc.mode": "0600", "rpc.tcp": "127.0.0.1:1", "mirror.tls.ca": "", "mirror.tls.certificate": "", "mirror.tls.private_key": "", "rpc.forward_status": "0",
		"event_route": "", "rules.list": "", "destinations": "sip:127.0.0.1:9", "kamailio_cfg": "",
	}
	for _, k := range Keys() {
		if strings.HasPrefix(k.Name, module) {
			continue
		}
		if k.Doc == "" {
			t.Errorf("%s is not described", k.Name)
		}
		sample, ok := samples[k.Name]
		if !ok {
			if sample = k.text(Default()); sample == unset {
				sample = "x"
			}
		}
		for _, name := range []string{k.Name, k.Old} {
			if name == "" {
				continue
			}
			yaml := file(t, "siptraced.yaml", fmt.Sprintf("# a line\n%s: %q\n", name, sample))
			env := envName(name)
			for _, tt := range []struct {
				src    Sources
				origin string
			}{
				{Sources{File: yaml}, yaml + ":2"},
				{Sources{Environ: []string{env + "=" + sample}}, env},
				{Sources{Set: []string{name + "=" + sample}}, "--set " + name},
			} {
				c, err := Load(tt.src)
				if err != nil {
					t.Errorf("%s: %v", tt.origin, err)
					continue
				}
				if v := value(t, c, k.Name); v.Origin != tt.origin {
					t.Errorf("%s: origin %s, want %s", k.Name, v.Origin, tt.origin)
				}
			}
			// What can't be read is an error with the same places.
			switch k.get(Default()).(type) {
			case string, []string, []any, nil:
				continue
			}
			_, err := Load(Sources{Environ: []string{env + "=/nonsense/"}})
			if err == nil || !strings.HasPrefix(err.Error(), env+": "+k.Name) {
				t.Errorf("%s=/nonsense/: %v, want an error that begins with the place and the name", env, err)
			}
		}
	}
}

// Defaults are those of the rooms, and are all good.
func TestDefaults(t *testing.T) {
	c, err := build(sources{}, nil, nil, newCache())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"spool.shards": "2", "spool.max_bytes": "8GiB", "spool.max_age": "0s", "spool.sync_interval": "100ms", "spool.batch_age": "10ms", "store.batch_rows": "4000",
		"mirror.mode": "all", "mirror.max_age": "24h", "mirror.max_bytes": "1GiB", "mirror.capture_id": "own", "mirror.ack": "tcp", "log.level": "info",
		"rpc.http": "127.0.0.1:8060", "rpc.rate": "2000", "rpc.mode": "unset", "memory_limit": "96MiB", "shutdown_timeout": "30s", "receive_buffer": "8MiB",
		"rules.tables": "sip_trace*", "rules.state_file": "siptraced.rules.json", "timezone": "Local", "rpc.compact": "0",
	} {
		if v := value(t, c, name); v.Text != want || v.Origin != "default" {
			t.Errorf("%s: got %s from %s, want %s", name, v.Text, v.Origin, want)
		}
	}
}

// No secret is in what is printed; all are compared.
func TestSecrets(t *testing.T) {
	for _, tt := range []struct{ key, one, two, shown string }{
		{"siptrace.db_url", "mysql://u:hush@h/db", "mysql://u:hush2@h/db", `"mysql://u:***@h/db"`},
		{"siptrace.auth_key", "hush", "hush2", masked},
		{"rpc.token", "hush", "hush2", masked},
		{"spool.nats", "nats://u:hush@a,nats://b", "nats://u:hush2@a,nats://b", "nats://u:***@a,nats://b"},
		{"spool.nats", "nats://u:hush@a:4222,b:4223", "nats://u:hush2@a:4222,b:4223", "nats://u:***@a:4222,b:4223"},
		{"spool.nats", "nats://hush@a:4222", "nats://hush2@a:4222", "nats://***@a:4222"},
		{"spool.monitor", "http://u:hush@a:8222,https://b", "http://u:hush2@a:8222,https://b", "http://u:***@a:8222,https://b"},
		{"destinations", "sip:127.0.0.1:9;auth_key=hush", "sip:127.0.0.1:9;auth_key=hush2", "127.0.0.1-9-udp sip:127.0.0.1:9;transport=udp hep3"},
	} {
		load := func(v string) *Config {
			c, err := Load(Sources{Set: []string{tt.key + "=" + v}})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		one, two := load(tt.one), load(tt.two)
		if v := value(t, one, tt.key); v.Text != tt.shown {
			t.Errorf("%s is shown as %s, want %s", tt.key, v.Text, tt.shown)
		}
		changes, err := one.Changes(two)
		if err != nil || len(changes) != 1 || changes[0].Name != tt.key {
			t.Errorf("%s: changes %v, %v", tt.key, changes, err)
		}
		if all := fmt.Sprint(changes, one.Values, one.Notes, one.Mirror.Destinations); strings.Contains(all, "hush") && tt.key != "destinations" {
			t.Errorf("%s: a secret is in %s", tt.key, all)
		}
		for _, d := range one.Mirror.Destinations {
			if strings.Contains(d.URI, "hush") {
				t.Errorf("%s: the key is in the URI %s", tt.key, d.URI)
			}
		}
	}
}

// A URL that can't be read is an error without its password.
func TestSecretInError(t *testing.T) {
	_, err := Load(Sources{Set: []string{"spool.nats=nats://u:hush%zz@a"}})
	if err == nil || !strings.Contains(err.Error(), "--set spool.nats") || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

// Remote control neither sees secrets nor names files.
func TestRemoteKeys(t *testing.T) {
	var remote []string
	for _, k := range Keys() {
		if !k.Remote {
			continue
		}
		remote = append(remote, k.Name)
		if k.Secret || k.Restart != "" || strings.Contains(k.Name, "file") {
			t.Errorf("%s must not be changed by remote control", k.Name)
		}
	}
	for _, want := range []string{"siptrace.trace_on", "siptrace.duplicate_uri", "log.level"} {
		if !slices.Contains(remote, want) {
			t.Errorf("%s is missing in %q", want, remote)
		}
	}
	for _, s := range siptrace.Specs() {
		if slices.Contains(remote, module+s.Name) != (s.Live() && !s.Secret) {
			t.Errorf("%s: live %v, secret %v", s.Name, s.Live(), s.Secret)
		}
	}
}

// A change by remote control reads no file again.
func TestWithReadsNothing(t *testing.T) {
	rules := file(t, "rules.yaml", "- {id: one, filter: \"request.method == 'INVITE'\"}\n")
	c, err := Load(Sources{Set: []string{"rules=" + rules}})
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, rules, "- {id: \n")
	with, err := c.With(Set{Name: "siptrace.trace_on", Text: "0", Origin: "remote control"})
	if err != nil {
		t.Fatal(err)
	}
	if with.Params.TraceOn || len(with.Rules.Rules) != 1 || value(t, with, "siptrace.trace_on").Origin != "remote control" || !c.Params.TraceOn {
		t.Errorf("got %+v", with)
	}
	if _, err := Load(Sources{Set: []string{"rules=" + rules}}); err == nil {
		t.Error("a load reads the file, and takes what is wrong")
	}
	// What changes in a file is a change of the rules.
	overwrite(t, rules, "- {id: one, filter: \"request.method == 'BYE'\"}\n")
	next, err := Load(Sources{Set: []string{"rules=" + rules}})
	if err != nil {
		t.Fatal(err)
	}
	if changes, err := with.Changes(next); err != nil || len(changes) != 1 || changes[0].Name != "rules" {
		t.Errorf("changes: %v, %v", changes, err)
	}
}
