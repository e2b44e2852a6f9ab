package sipmsg

import "testing"

func TestParseURI(t *testing.T) {
	tests := []struct {
		in                                        string
		scheme, user, host, port, params, headers string
		bad                                       bool
	}{
		{in: "sip:alice@example.com", scheme: "sip", user: "alice", host: "example.com"},
		{in: "SIPS:alice:secret@example.com:5061;transport=tcp;lr?Subject=x&a=b", scheme: "SIPS", user: "alice", host: "example.com", port: "5061", params: "transport=tcp;lr", headers: "Subject=x&a=b"},
		{in: "sip:example.com", scheme: "sip", host: "example.com"},
		{in: "sip:192.0.2.1:5060", scheme: "sip", host: "192.0.2.1", port: "5060"},
		{in: "sip:[2001:db8::1]", scheme: "sip", host: "[2001:db8::1]"},
		{in: "sip:bob@[::1]:15060;ob", scheme: "sip", user: "bob", host: "[::1]", port: "15060", params: "ob"},
		{in: "sip:user;par=u%40example.net@example.com", scheme: "sip", user: "user;par=u%40example.net", host: "example.com"},
		{in: "sip:a?b/c;d=e@host;f", scheme: "sip", user: "a?b/c;d=e", host: "host", params: "f"},
		{in: "sip:user@example.com?Route=%3Csip:example.com%3E", scheme: "sip", user: "user", host: "example.com", headers: "Route=%3Csip:example.com%3E"},
		{in: "sip:host?Contact=;x", scheme: "sip", host: "host", headers: "Contact=;x"},
		{in: "sip:@example.com", scheme: "sip", host: "example.com"},
		{in: "tel:+1-201-555-0123", scheme: "tel", user: "+1-201-555-0123"},
		{in: "tel:7042;phone-context=example.com", scheme: "tel", user: "7042", params: "phone-context=example.com"},
		{in: "urn:service:sos.fire", scheme: "urn", user: "service:sos.fire"},

		{in: "http://example.com", scheme: "http", bad: true},
		{in: "*", bad: true},
		{in: "", bad: true},
		{in: ":alice@example.com", bad: true},
		{in: "sip:", scheme: "sip", bad: true},
		{in: "sip:alice@", scheme: "sip", user: "alice", bad: true},
		{in: "sip:alice@;lr", scheme: "sip", user: "alice", params: "lr", bad: true},
		{in: "sip:a@b:", scheme: "sip", user: "a", host: "b", bad: true},
		{in: "sip:a@b:5x", scheme: "sip", user: "a", host: "b", bad: true},
		{in: "sip:a@[::1", scheme: "sip", user: "a", bad: true},
		{in: "sip:a@[::1]5060", scheme: "sip", user: "a", host: "[::1]", bad: true},
		{in: "tel:", scheme: "tel", bad: true},
		{in: "urn:", scheme: "urn", bad: true},
	}
	for _, tt := range tests {
		u, ok := ParseURI([]byte(tt.in))
		if string(u.Scheme) != tt.scheme || string(u.User) != tt.user || string(u.Host) != tt.host ||
			string(u.Port) != tt.port || string(u.Params) != tt.params || string(u.Headers) != tt.headers || ok == tt.bad {
			t.Errorf("%s: got %q, %v", tt.in, u, ok)
		}
	}
}
