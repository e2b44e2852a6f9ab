package siptrace

import "testing"

// What each kind of message gets, by parameters and mirrors.
func TestRouting(t *testing.T) {
	const db, hep, sip, static = ToStore, ToHEP, ToSIP, ToListed
	uri := func(p *Params) { p.DuplicateURI = []string{"sip:h"} }
	for _, tt := range []struct {
		name string
		set  func(*Params)
		m    Mirroring
		want Routing
	}{
		{name: "the module's defaults", want: Routing{Default: db, Named: db | sip, Log: db, OwnLog: db}},
		{name: "duplicate_uri", set: uri, want: Routing{Default: db | sip, Named: db | sip, Log: db, OwnLog: db | hep, Onwards: true}},
		{name: "HEP", set: func(p *Params) { uri(p); p.HEPModeOn = true }, want: Routing{Default: db | hep, Named: db | hep, Other: hep, Log: db | hep, OwnLog: db | hep, Onwards: true}},
		{name: "explicit", set: func(p *Params) { uri(p); p.HEPModeOn = true }, m: Mirroring{Explicit: true}, want: Routing{Default: db, Named: db | hep, Log: db, OwnLog: db | hep, Onwards: true}},
		{
			name: "explicit, but trace_mode mirrors all", set: func(p *Params) { uri(p); p.TraceMode = ModeHEP }, m: Mirroring{Explicit: true},
			want: Routing{Default: db | hep, Named: db | hep, Other: hep, Log: db | hep, OwnLog: db | hep, Onwards: true},
		},
		{
			name: "destinations alone", set: func(p *Params) { p.TraceToDatabase = false }, m: Mirroring{Static: true},
			want: Routing{Named: sip, Always: static, Other: static, Log: static, OwnLog: static, Onwards: true},
		},
		{name: "nothing", set: func(p *Params) { p.TraceToDatabase = false }, want: Routing{Named: sip}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := DefaultParams()
			if tt.set != nil {
				tt.set(&p)
			}
			if got := p.Routing(tt.m); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}
