package wire

// Tokens under a service's root that belong to the runtime. Package names keeps
// every token that begins with "_" free for them.
const (
	CancelToken = "_all.cancel"
	AliveToken  = "_all.alive"
	AllWildcard = "_all.>"
	// AliveSuffix is where to ask one instance whether it works on calls, below the instance.
	AliveSuffix = "alive"
	// AllToken comes before what every instance gets.
	AllToken = "_all"
	// InstanceToken comes before the instance and the stream.
	InstanceToken = "_i"
	// InstancesToken is where to ask what an instance is, below AllToken or the instance.
	InstancesToken = "instances"
	// CallToken is where to send requests to an instance or to all; the method follows.
	CallToken = "call"
	// PeersToken is where an instance gets the answers of the others, below the instance.
	PeersToken = "peers"
	// SchemaMethod and HealthMethod are the methods that each service has beside its own.
	SchemaMethod = "_schema"
	HealthMethod = "_health"
)
