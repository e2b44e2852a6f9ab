package flexisip_test

import (
	"fmt"

	"siptraced/compat/flexisip"
	"siptraced/compat/sipmsg"
	"siptraced/compat/siptrace"
)

func ExampleCompile() {
	f, err := flexisip.Compile(`request.method == 'INVITE' && from.uri.user contains '+33'`)
	if err != nil {
		fmt.Println(err)
		return
	}
	var msg sipmsg.Message
	if err := msg.Parse([]byte("INVITE sip:b@h SIP/2.0\r\nFrom: <sip:+331@h>;tag=1\r\n\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(f.Match(&msg, &siptrace.Record{}))

	_, err = flexisip.Compile(`request.method = 'INVITE'`)
	fmt.Println(err)
	// Output:
	// true
	// flexisip: want ==, !=, contains, in, nin, notin or regex at byte 15, "= 'INVITE'"
}
