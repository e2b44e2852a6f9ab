package mi_test

import (
	"context"
	"fmt"

	"siptraced/rpc"
	"siptraced/rpc/mi"
)

func Example() {
	reg := rpc.NewRegistry()
	err := reg.Register(rpc.Method{Name: "sip_trace", Handler: func(_ context.Context, c *rpc.Call) (any, error) {
		return "off", nil
	}})
	if err != nil {
		panic(err)
	}
	var in mi.Splitter
	in.Write([]byte(":sip_trace:openser_receiver_77\n\n"))
	req, _, err := in.Next()
	fmt.Printf("%s: %q", req.ReplyName, mi.Answer(context.Background(), reg, rpc.NewPeer("fifo", "/tmp/openser_fifo"), req, err))
	// Output: openser_receiver_77: "200 OK\noff\n\n"
}
