package flexicli_test

import (
	"context"
	"fmt"

	"siptraced/rpc"
	"siptraced/rpc/flexicli"
)

func Example() {
	s := &store{level: "error"}
	peer := rpc.NewPeer("unix", "/tmp/flexisip-proxy-77")
	for _, request := range []string{"CONFIG_SET global/log-level debug", "CONFIG_GET global/nothing"} {
		fmt.Printf("%s\n", flexicli.Answer(context.Background(), s, peer, []byte(request)))
	}
	// Output:
	// global/log-level: debug
	// Error - Not found: global/nothing
}
