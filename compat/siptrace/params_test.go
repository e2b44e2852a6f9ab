package siptrace

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// The defaults of the module's documentation, and of its code where the two
// differ (trace_flag).
func TestDefaults(t *testing.T) {
	want := map[string]any{
		"db_url": "mysql://kamailio:kamailiorw@localhost/kamailio", "table": "sip_trace", "trace_flag": int64(-1),
		"trace_on": int64(0), "traced_user_avp": "", "trace_table_avp": "", "duplicate_uri": "", "trace_to_database": int64(1),
		"trace_local_ip": "", "trace_sl_acks": int64(1), "xheaders_write": int64(0), "xheaders_read": int64(0),
		"hep_mode_on": int64(0), "hep_version": int64(1), "hep_capture_id": int64(1), "trace_db_mode": int64(0),
		"trace_delayed": int64(0), "send_sock_name": "", "send_sock_addr": "", "force_send_sock": "",
		"trace_init_mode": int64(0), "trace_mode": int64(0), "data_mode": int64(0), "auth_key": "", "evcb_msg": "",
		"trace_dialog_ack": int64(1), "trace_dialog_spiral": int64(1), "trace_ephemeral_socket": int64(0),
		"date_column": "time_stamp", "callid_column": "callid", "traced_user_column": "traced_user", "msg_column": "msg",
		"method_column": "method", "status_column": "status", "fromip_column": "fromip", "toip_column": "toip",
		"fromtag_column": "fromtag", "totag_column": "totag", "direction_column": "direction",
	}
	p := DefaultParams()
	got := map[string]any{}
	for _, s := range Specs() {
		got[s.Name] = s.Value(&p)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if err := p.Validate(); err != nil {
		t.Error(err)
	}
}

func TestSet(t *testing.T) {
	tests := []struct {
		name  string
		value any
		want  any    // of Spec.Value; nil: an error
		text  string // part of the error
	}{
		{"trace_on", int64(1), int64(1), ""},
		{"trace_on", int64(7), int64(1), ""},
		{"trace_on", true, int64(1), ""},
		{"trace_on", "1", nil, "string; write the number without quotes"},
		{"table", "strace", "strace", ""},
		{"table", int64(5), nil, "put it in quotes"},
		{"table", "", nil, "empty"},
		{"table", "a b", nil, "letters, digits"},
		{"table", "x`; DROP TABLE y; --", nil, "letters, digits"},
		{"table", strings.Repeat("t", 64), nil, "64 characters"},
		{"trace_flag", int64(22), int64(22), ""},
		{"trace_flag", int64(32), nil, "-1 to 31"},
		{"traced_user_avp", "$avp(s:user)", "$avp(s:user)", ""},
		{"traced_user_avp", int64(123), "123", ""}, // OpenSER
		{"traced_user_avp", "user name", nil, "not an AVP"},
		{"trace_table_avp", "$avp(i:345)", "$avp(i:345)", ""},
		{"trace_table_avp", int64(345), nil, "put it in quotes"},
		{"duplicate_uri", "sip:10.1.1.1:5888", "sip:10.1.1.1:5888", ""},
		{"duplicate_uri", []any{"sip:a", "sips:b;transport=tls"}, "sip:a,sips:b;transport=tls", ""},
		{"duplicate_uri", "10.1.1.1", nil, "not a SIP URI"},
		{"duplicate_uri", []any{"sip:a", int64(1)}, nil, "not a string"},
		{"hep_version", int64(3), int64(3), ""},
		{"hep_version", int64(4), nil, "1 to 3"},
		{"hep_version", int64(0), nil, "1 to 3"},
		{"hep_capture_id", int64(70001), int64(70001), ""},
		{"hep_capture_id", int64(-1), nil, "out of range"},
		{"trace_mode", int64(7), int64(7), ""},
		{"trace_mode", int64(8), nil, "0 to 7"},
		{"trace_db_mode", int64(3), nil, "0 to 2"},
		{"trace_init_mode", int64(3), nil, "0 to 2"},
		{"auth_key", "k", "k", ""},
		{"auth_key", int64(12), "12", ""}, // the documentation says integer
		{"trace_dialog_ack", "0", int64(0), ""},
		{"trace_dialog_ack", int64(0), int64(0), ""},
		{"trace_dialog_ack", "no", nil, "not a number"},
		{"callid_column", "x_callid", "x_callid", ""},
		{"callid_column", "x.y", nil, "letters, digits"},
		{"send_sock_addr", "sip:10.1.1.2:5000", "sip:10.1.1.2:5000", ""},
		{"db_url", "mysql://u:p@h/db", "mysql://u:p@h/db", ""},
		{"db_url", "oracle://u:p@h/db", nil, "oracle"},
		{"trace_on", 1.5, nil, "float64"},
		{"table", []any{"a"}, nil, "does not fit"},
	}
	for _, tt := range tests {
		p := DefaultParams()
		err := p.Set(tt.name, tt.value)
		if tt.want == nil {
			var pe *ParamError
			if !errors.As(err, &pe) || pe.Name != tt.name || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s = %v: got error %v, want one with %q", tt.name, tt.value, err, tt.text)
			}
			continue
		}
		s, _ := Lookup(tt.name)
		if got := s.Value(&p); err != nil || got != tt.want {
			t.Errorf("%s = %v: got %v, error %v, want %v", tt.name, tt.value, got, err, tt.want)
		}
	}
}

func TestSetText(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"trace_on", "1", "1"},
		{"trace_on", "", "0"},
		{"duplicate_uri", "sip:a,sip:b", "sip:a,sip:b"},
		{"duplicate_uri", "", ""},
		{"trace_local_ip", "", ""},
		{"send_sock_addr", "", ""},
		{"traced_user_avp", "", ""},
		{"table", "", "sip_trace"},
		{"hep_capture_id", "0x10", "16"},
	}
	for _, tt := range tests {
		p := DefaultParams()
		p.DuplicateURI, p.TraceOn, p.TraceLocalIP, p.Table, p.TracedUserAVP = []string{"sip:old"}, true, "udp:1.1.1.1:1", "old", "$avp(x)"
		err := p.SetText(tt.name, tt.text)
		s, _ := Lookup(tt.name)
		got := s.Value(&p)
		if n, ok := got.(int64); ok {
			got = map[bool]string{true: "1", false: "0"}[n == 1]
			if n > 1 {
				got = "16"
			}
		}
		if err != nil || got != tt.want {
			t.Errorf("%s=%s: got %v, error %v, want %v", tt.name, tt.text, got, err, tt.want)
		}
	}
	p := DefaultParams()
	if err := p.SetText("trace_on", "yes"); err == nil {
		t.Error("trace_on=yes: no error")
	}
}

func TestUnknownParameter(t *testing.T) {
	p := DefaultParams()
	for _, set := range []func() error{
		func() error { return p.Set("trace_onn", int64(1)) },
		func() error { return p.SetText("trace_onn", "1") },
	} {
		var e *UnknownParamError
		if err := set(); !errors.As(err, &e) || e.Name != "trace_onn" {
			t.Errorf("got %v", err)
		}
	}
}

func TestDerived(t *testing.T) {
	p := DefaultParams()
	set := func(name string, v any) {
		t.Helper()
		if err := p.Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	set("trace_delayed", int64(1))
	if p.TraceDBMode != 1 {
		t.Errorf("trace_delayed: trace_db_mode is %d", p.TraceDBMode)
	}
	set("force_send_sock", "sip:10.0.0.1")
	if p.SendSockAddr != "sip:10.0.0.1" {
		t.Errorf("force_send_sock: send_sock_addr is %q", p.SendSockAddr)
	}
	set("trace_init_mode", int64(1))
	if p.Validate() == nil {
		t.Error("trace_init_mode 1 with trace_mode 0 is taken")
	}
	set("trace_to_database", int64(0))
	if p.Stores() {
		t.Error("trace_to_database 0: stores")
	}
	set("trace_mode", int64(2))
	if !p.Stores() {
		t.Error("trace_mode 2: does not store")
	}
	for in, want := range map[string]string{
		"udp:10.20.30.40:5060": "udp:10.20.30.40:5060", "10.20.30.40:5064": "udp:10.20.30.40:5064", "10.20.30.40": "udp:10.20.30.40",
		"TLS:10.0.0.1:5061": "TLS:10.0.0.1:5061", "": "",
	} {
		q := DefaultParams()
		q.TraceLocalIP = in
		if got := q.LocalIP(); got != want {
			t.Errorf("trace_local_ip %q: got %q, want %q", in, got, want)
		}
		if q.TraceMode = 1; q.LocalIP() != "" {
			t.Errorf("trace_local_ip %q has an effect on trace_mode", in)
		}
	}
}

func TestParseDBURL(t *testing.T) {
	tests := []struct {
		in   string
		want DBURL
		safe string // Redacted; empty: an error
	}{
		{"mysql://kamailio:kamailiorw@localhost/kamailio", DBURL{DriverMySQL, "kamailio", "kamailiorw", []string{"localhost"}, "kamailio"}, "mysql://kamailio:***@localhost/kamailio"},
		{"mysql://u:p@h:3307/db", DBURL{DriverMySQL, "u", "p", []string{"h:3307"}, "db"}, "mysql://u:***@h:3307/db"},
		{"postgres://u:a@b:c/d@h/db", DBURL{DriverPostgres, "u", "a@b:c/d", []string{"h"}, "db"}, "postgres://u:***@h/db"},
		{"mysql://u:p%40@h/db", DBURL{DriverMySQL, "u", "p%40", []string{"h"}, "db"}, "mysql://u:***@h/db"},
		{"mysql://u@[::1]:3306/db", DBURL{DriverMySQL, "u", "", []string{"[::1]:3306"}, "db"}, "mysql://u@[::1]:3306/db"},
		{"mysql://u:p@a,b:3307/db", DBURL{DriverMySQL, "u", "p", []string{"a", "b:3307"}, "db"}, "mysql://u:***@a,b:3307/db"},
		{"mysql:///db", DBURL{DriverMySQL, "", "", []string{"localhost"}, "db"}, "mysql://localhost/db"},
		{"sqlite:///var/lib/x.db", DBURL{Driver: DriverSQLite, Database: "/var/lib/x.db"}, "sqlite:///var/lib/x.db"},
		{"sqlite://x.db", DBURL{Driver: DriverSQLite, Database: "x.db"}, "sqlite://x.db"},
		{"text:///etc/dbtext", DBURL{Driver: DriverText, Database: "/etc/dbtext"}, "text:///etc/dbtext"},
		{"mysql://u:secret@h", DBURL{}, ""},
		{"mysql://u:secret@h/", DBURL{}, ""},
		{"mysql://u:secret@h:99999/db", DBURL{}, ""},
		{"oracle://u:secret@h/db", DBURL{}, ""},
		{"sqlite://", DBURL{}, ""},
		{"secret", DBURL{}, ""},
		{"", DBURL{}, ""},
	}
	for _, tt := range tests {
		got, err := ParseDBURL(tt.in)
		if tt.safe == "" {
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("%q: got %+v, error %v", tt.in, got, err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: got %+v, error %v, want %+v", tt.in, got, err, tt.want)
		}
		if got.Redacted() != tt.safe || got.LogValue().String() != tt.safe {
			t.Errorf("%q: redacted to %q, want %q", tt.in, got.Redacted(), tt.safe)
		}
	}
}

// Which sinks take a message: spec of trace_to_database, trace_mode and
// hep_mode_on, as the module has it on the wire.
func TestSinks(t *testing.T) {
	for _, tt := range []struct {
		mode, hep, db int64
		destination   bool
		want          Sinks
	}{
		{want: 0},
		{db: 1, want: ToStore},
		{mode: ModeDatabase, want: ToStore},
		{mode: ModeHEP, want: 0},
		{destination: true, want: ToSIP},
		{destination: true, hep: 1, want: ToHEP},
		{destination: true, hep: 1, db: 1, want: ToStore | ToHEP},
		{destination: true, db: 1, want: ToStore | ToSIP},
		{destination: true, mode: 3, want: ToStore | ToHEP}, // hep_mode_on is not looked at
		{destination: true, mode: ModeHEP, want: ToHEP},
		{destination: true, mode: ModeSIP, hep: 1, want: ToSIP},
		{destination: true, mode: 7, want: ToStore | ToHEP | ToSIP},
		{destination: true, mode: ModeDatabase, hep: 1, want: ToStore | ToHEP},
	} {
		p := Params{TraceMode: int(tt.mode), HEPModeOn: tt.hep == 1, TraceToDatabase: tt.db == 1}
		if got := p.Sinks(tt.destination); got != tt.want {
			t.Errorf("trace_mode %d, hep_mode_on %d, trace_to_database %d, destination %t: got %b, want %b", tt.mode, tt.hep, tt.db, tt.destination, got, tt.want)
		}
	}
}
