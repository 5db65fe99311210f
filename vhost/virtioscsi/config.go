package virtioscsi

// Feature bits of the device (VIRTIO 1.2 §5.6.3), by number.
const (
	FeatureInOut   = 0 // a request may have data in both directions
	FeatureHotplug = 1 // events tell of LUNs that come and go
	FeatureChange  = 2 // events tell of changed parameters: of a new size
	FeatureT10PI   = 3 // requests have protection information
)

// Feature bits of every device (VIRTIO 1.2 §6), by number.
const (
	FeatureNotifyOnEmpty = 24
	FeatureAnyLayout     = 27
	FeatureIndirectDesc  = 28
	FeatureEventIdx      = 29
	FeatureVersion1      = 32
	FeaturePlatform      = 33 // ACCESS_PLATFORM: addresses pass an IOMMU
	FeatureRingPacked    = 34
	FeatureInOrder       = 35
	FeatureRingReset     = 40
)

// Has tells whether the set holds the feature of that number.
func Has(set uint64, n uint) bool { return set>>n&1 != 0 }

// Queues before the request queues, and the most that the standard has of those.
const (
	ControlQueue    = 0
	EventQueue      = 1
	FirstQueue      = 2
	MaxRequestQueue = 1024
)
