package mirror

import (
	"strings"
	"testing"
	"time"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct{ uri, want, name string }{
		{"sip:192.0.2.1", "sip:192.0.2.1:5060;transport=udp", "192.0.2.1-5060-udp"},
		{"sip:192.0.2.1:9060", "sip:192.0.2.1:9060;transport=udp", "192.0.2.1-9060-udp"},
		{"SIP:Homer.example.com:9060;transport=TCP", "sip:homer.example.com:9060;transport=tcp", "homer.example.com-9060-tcp"},
		{"sips:h", "sip:h:5061;transport=tls", "h-5061-tls"},
		{"sip:u@h;transport=tls", "sip:h:5061;transport=tls", "h-5061-tls"},
		{"sip:[2001:DB8::1]:9060;name=x", "sip:[2001:db8::1]:9060;transport=udp", "2001_db8__1-9060-udp"},
		{"sip:[::ffff:192.0.2.1]", "sip:192.0.2.1:5060;transport=udp", "192.0.2.1-5060-udp"},
		{"192.0.2.1:9060", "", ""},
		{"tel:123", "", ""},
		{"sip:h;transport=sctp", "", ""},
		{"sip:h:0", "", ""},
		{"sip:h:99999", "", ""},
		{"", "", ""},
	} {
		t.Run(tt.uri, func(t *testing.T) {
			got, _, err := ParseTarget(tt.uri)
			if tt.want == "" {
				if err == nil {
					t.Errorf("got %s, want an error", got)
				}
				return
			}
			if err != nil || got.String() != tt.want || got.DefaultName() != tt.name {
				t.Errorf("got %s %s, %v; want %s %s", got, got.DefaultName(), err, tt.want, tt.name)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	good := func() Destination {
		d, err := Destination{Time: TimeOriginal, Ack: AckTCP, MaxBytes: 1 << 20, MaxAge: time.Hour, Protocol: HEP3}.At("sip:h:9060;transport=tcp")
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	for name, change := range map[string]func(*Destination){
		"":            func(*Destination) {},
		"name":        func(d *Destination) { d.Name = "a b" },
		"protocol":    func(d *Destination) { d.Protocol = "hep4" },
		"in a stream": func(d *Destination) { d.Protocol = HEP2 },
		"ack":         func(d *Destination) { d.Ack = "later" },
		"time":        func(d *Destination) { d.Time = "now" },
		"max_bytes":   func(d *Destination) { d.MaxBytes = 1 },
		"max_age":     func(d *Destination) { d.MaxAge = 0 },
	} {
		d := good()
		change(&d)
		err := d.Validate()
		if name == "" && err != nil || name != "" && (err == nil || !strings.Contains(err.Error(), strings.Fields(name)[0])) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
