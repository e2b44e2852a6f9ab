package rules

import (
	"testing"

	"siptraced/cmd/siptraced/internal/mirror"
	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/siptrace"
)

// TestURIs: whoever takes the address of a mirror gives the same answer to it. A
// transport that the proxy has and mirrors have not is refused where the address is
// used (rules.destination_refused).
func TestURIs(t *testing.T) {
	for uri, want := range map[string]bool{
		"sip:h": true, "SIP:h": true, "sips:h:5062": true, "sip:[::1]:9060;transport=tcp": true, "sip:u@h;lr;transport=TLS": true,
		"sip:": false, "sip:?": false, "sip:h:0": false, "sip:h:70000": false, "sip:h;transport=x": false, "tel:1": false, "h:5060": false, "sip:a b": false, "sip:[::1": false,
	} {
		params := siptrace.DefaultParams()
		_, _, target := mirror.ParseTarget(uri)
		cfg, err := kamcfg.ParseBytes("k.cfg", []byte(`event_route[siptrace:msg] { sip_trace("`+uri+`"); }`), kamcfg.Options{})
		if err != nil {
			t.Fatal(err)
		}
		_, route := script.Compile(cfg.EventRoutes[0], script.Options{})
		rule := &Rule{ID: "r", Destinations: []string{uri}}
		for what, err := range map[string]error{
			"duplicate_uri":  params.Set("duplicate_uri", uri),
			"send_sock_addr": params.Set("send_sock_addr", uri),
			"a destination":  target,
			"sip_trace()":    route,
			"a rule":         rule.check(),
		} {
			if (err == nil) != want {
				t.Errorf("%s as %s: %v, want it taken: %v", uri, what, err, want)
			}
		}
	}
}
