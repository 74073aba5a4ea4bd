"""Random streams for training one member of an ensemble by itself."""

from rarenodes.training.loop import Streams


class OnlyMember(Streams):
    """The streams of one member of a larger ensemble."""

    member = 0

    def initial_weights(self, members):
        return super().initial_weights(self.member + 1)[self.member :]

    def dropout(self, members, epoch, device):
        return super().dropout(self.member + 1, epoch, device)[self.member :]
