package script_test

import (
	"fmt"

	"siptraced/compat/kamcfg"
	"siptraced/compat/script"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

func ExampleCompile() {
	cfg, err := kamcfg.ParseBytes("kamailio.cfg", []byte(`
event_route[siptrace:msg] {
	if (is_method("OPTIONS")) drop();
	if ($fU =~ "^49") $avp(s:user) = $fU + "@" + $fd;
}
`), kamcfg.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	route, _ := cfg.EventRoute("siptrace:msg")
	prog, err := script.Compile(route, script.Options{Routes: cfg.Routes, Defines: cfg.Defines})
	if err != nil {
		fmt.Println(err)
		return
	}
	user := prog.AVP("$avp(s:user)")

	var sip sipmsg.Message
	if err := sip.Parse([]byte("INVITE sip:b@example.com SIP/2.0\r\nFrom: <sip:4930@example.com>;tag=1\r\n\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	var m script.Message // one per worker, reused
	res := prog.Run(&m, &sip, &siptrace.Record{})
	fmt.Printf("dropped %v, users %s\n", res.Dropped, m.Values(user, nil))

	_, err = script.Compile(kamcfg.Route{Text: `t_relay();`, Pos: kamcfg.Pos{File: "kamailio.cfg", Line: 7}}, script.Options{})
	fmt.Println(err)
	// Output:
	// dropped false, users [4930@example.com]
	// kamailio.cfg:7: t_relay() can't be run outside the proxy; transactions live in the proxy
}
