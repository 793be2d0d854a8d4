package v3

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// described keeps the descriptions of what is registered.
type described []*grpc.ServiceDesc

func (d *described) RegisterService(desc *grpc.ServiceDesc, _ any) { *d = append(*d, desc) }

// No method is forgotten, and no name is wrong: one that the table does not have is root's.
func TestEveryMethodSaysWhatItNeeds(t *testing.T) {
	var all described
	Register(&all, nil)
	methods := 0
	for _, service := range all {
		var names []string
		for _, m := range service.Methods {
			names = append(names, m.MethodName)
		}
		for _, s := range service.Streams {
			names = append(names, s.StreamName)
		}
		for _, name := range names {
			methods++
			if full := "/" + service.ServiceName + "/" + name; needs[full] == 0 {
				t.Errorf("%s is not in the table", full)
			}
		}
	}
	if methods != len(needs) || methods < 50 {
		t.Errorf("%d methods, %d in the table", methods, len(needs))
	}
	for action, want := range map[pb.AlarmRequest_AlarmAction]need{
		pb.AlarmRequest_GET: ofAnyUser, pb.AlarmRequest_ACTIVATE: ofAdmin, pb.AlarmRequest_DEACTIVATE: ofAdmin, 17: ofAdmin,
	} {
		if got := needOf(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{Action: action}); got != want {
			t.Errorf("alarm %v needs %v", action, got)
		}
	}
}
