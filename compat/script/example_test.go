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

	cfg, err = kamcfg.ParseBytes("kamailio.cfg", []byte("event_route[siptrace:msg] {\n\tt_relay();\n}\n"), kamcfg.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	_, err = script.Compile(cfg.EventRoutes[0], script.Options{})
	fmt.Println(err)
	// Output:
	// dropped false, users [4930@example.com]
	// kamailio.cfg:2: t_relay() can't be run outside the proxy; transactions live in the proxy
}

func ExampleCompileFormat() {
	f, err := script.CompileFormat("$ci-abc, $$5 of $fU")
	if err != nil {
		fmt.Println(err)
		return
	}
	var sip sipmsg.Message
	if err := sip.Parse([]byte("INVITE sip:b@example.com SIP/2.0\r\nCall-ID: 7@h\r\n\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	var m script.Message
	text, ok := f.Text(&m, &sip, &siptrace.Record{})
	fmt.Printf("%s, %v\n", text, ok)

	_, err = script.CompileFormat("$du")
	fmt.Println(err)
	// Output:
	// 7@h-abc, $5 of <null>, true
	// $du has no value outside the proxy; the destination is chosen in the proxy; use $siptrace(dst_addr)
}
