package proto

import (
	"fmt"
	"math/bits"
	"strings"
)

// Features are the bits of GET_FEATURES and SET_FEATURES: those of the virtio device,
// of virtio as such, and of vhost.
type Features uint64

// The feature bits that a virtio-scsi device can meet (VIRTIO 1.2 §5.6.3, §6;
// vhost-user).
const (
	FeatureInOut            Features = 1 << 0 // VIRTIO_SCSI_F_INOUT
	FeatureHotplug          Features = 1 << 1 // VIRTIO_SCSI_F_HOTPLUG
	FeatureChange           Features = 1 << 2 // VIRTIO_SCSI_F_CHANGE
	FeatureT10PI            Features = 1 << 3 // VIRTIO_SCSI_F_T10_PI
	FeatureNotifyOnEmpty    Features = 1 << 24
	FeatureLogAll           Features = 1 << 26 // VHOST_F_LOG_ALL
	FeatureAnyLayout        Features = 1 << 27
	FeatureIndirectDesc     Features = 1 << 28
	FeatureEventIdx         Features = 1 << 29
	FeatureProtocol         Features = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	FeatureVersion1         Features = 1 << 32
	FeatureAccessPlatform   Features = 1 << 33
	FeatureRingPacked       Features = 1 << 34
	FeatureInOrder          Features = 1 << 35
	FeatureOrderPlatform    Features = 1 << 36
	FeatureSRIOV            Features = 1 << 37
	FeatureNotificationData Features = 1 << 38
	FeatureNotifConfigData  Features = 1 << 39
	FeatureRingReset        Features = 1 << 40
)

var featureNames = []string{
	0: "INOUT", 1: "HOTPLUG", 2: "CHANGE", 3: "T10_PI",
	24: "NOTIFY_ON_EMPTY", 26: "LOG_ALL", 27: "ANY_LAYOUT", 28: "INDIRECT_DESC", 29: "EVENT_IDX", 30: "PROTOCOL_FEATURES",
	32: "VERSION_1", 33: "ACCESS_PLATFORM", 34: "RING_PACKED", 35: "IN_ORDER", 36: "ORDER_PLATFORM", 37: "SR_IOV",
	38: "NOTIFICATION_DATA", 39: "NOTIF_CONFIG_DATA", 40: "RING_RESET",
}

// properties are what a QEMU command line calls the features of its
// vhost-user-scsi-pci device.
var properties = []string{
	0: "inout", 1: "hotplug", 2: "param_change", 3: "t10_pi", 24: "notify_on_empty", 27: "any_layout",
	28: "indirect_desc", 29: "event_idx", 33: "iommu_platform", 34: "packed", 35: "in_order", 40: "queue_reset",
}

// Names lists the bits that are set; unknown ones as "bit N".
func (f Features) Names() []string { return names(uint64(f), featureNames) }

// String is Names joined by "|".
func (f Features) String() string { return join(f.Names()) }

// Properties lists by which QEMU properties the bits that are set were asked for
// ("packed=on"), by their names where there is none.
func (f Features) Properties() []string {
	var s []string
	for v := uint64(f); v != 0; v &= v - 1 {
		i := bits.TrailingZeros64(v)
		if i < len(properties) && properties[i] != "" {
			s = append(s, properties[i]+"=on")
		} else {
			s = append(s, name(i, featureNames))
		}
	}
	return s
}

// ProtocolFeatures are the bits of GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES.
type ProtocolFeatures uint64

// The protocol features.
const (
	ProtocolMQ                  ProtocolFeatures = 1 << 0
	ProtocolLogShmFD            ProtocolFeatures = 1 << 1
	ProtocolRARP                ProtocolFeatures = 1 << 2
	ProtocolReplyAck            ProtocolFeatures = 1 << 3
	ProtocolMTU                 ProtocolFeatures = 1 << 4
	ProtocolBackendReq          ProtocolFeatures = 1 << 5
	ProtocolCrossEndian         ProtocolFeatures = 1 << 6
	ProtocolCryptoSession       ProtocolFeatures = 1 << 7
	ProtocolPageFault           ProtocolFeatures = 1 << 8
	ProtocolConfig              ProtocolFeatures = 1 << 9
	ProtocolBackendSendFD       ProtocolFeatures = 1 << 10
	ProtocolHostNotifier        ProtocolFeatures = 1 << 11
	ProtocolInflightShmFD       ProtocolFeatures = 1 << 12
	ProtocolResetDevice         ProtocolFeatures = 1 << 13
	ProtocolInbandNotifications ProtocolFeatures = 1 << 14
	ProtocolConfigureMemSlots   ProtocolFeatures = 1 << 15
	ProtocolStatus              ProtocolFeatures = 1 << 16
	ProtocolXenMmap             ProtocolFeatures = 1 << 17
	ProtocolSharedObject        ProtocolFeatures = 1 << 18
	ProtocolDeviceState         ProtocolFeatures = 1 << 19
)

var protocolNames = []string{
	0: "MQ", 1: "LOG_SHMFD", 2: "RARP", 3: "REPLY_ACK", 4: "MTU", 5: "BACKEND_REQ", 6: "CROSS_ENDIAN",
	7: "CRYPTO_SESSION", 8: "PAGEFAULT", 9: "CONFIG", 10: "BACKEND_SEND_FD", 11: "HOST_NOTIFIER",
	12: "INFLIGHT_SHMFD", 13: "RESET_DEVICE", 14: "INBAND_NOTIFICATIONS", 15: "CONFIGURE_MEM_SLOTS",
	16: "STATUS", 17: "XEN_MMAP", 18: "SHARED_OBJECT", 19: "DEVICE_STATE",
}

// Names lists the bits that are set; unknown ones as "bit N".
func (f ProtocolFeatures) Names() []string { return names(uint64(f), protocolNames) }

// String is Names joined by "|".
func (f ProtocolFeatures) String() string { return join(f.Names()) }

// Status is the virtio device status (VIRTIO 1.2 §2.1), the body of SET_STATUS and
// GET_STATUS.
type Status uint64

// The bits of Status.
const (
	StatusAcknowledge      Status = 1
	StatusDriver           Status = 2
	StatusDriverOK         Status = 4
	StatusFeaturesOK       Status = 8
	StatusDeviceNeedsReset Status = 64
	StatusFailed           Status = 128
)

var statusNames = []string{0: "ACKNOWLEDGE", 1: "DRIVER", 2: "DRIVER_OK", 3: "FEATURES_OK", 6: "DEVICE_NEEDS_RESET", 7: "FAILED"}

// String names the bits.
func (s Status) String() string { return join(names(uint64(s), statusNames)) }

func name(i int, table []string) string {
	if i < len(table) && table[i] != "" {
		return table[i]
	}
	return fmt.Sprintf("bit %d", i)
}

func names(v uint64, table []string) []string {
	var s []string
	for ; v != 0; v &= v - 1 {
		s = append(s, name(bits.TrailingZeros64(v), table))
	}
	return s
}

func join(s []string) string {
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, "|")
}
