from unbroken.client import Appended as Appended
from unbroken.client import Client as Client
from unbroken.client import ConnectionStatus as ConnectionStatus
from unbroken.client import Follow as Follow
from unbroken.client import Producer as Producer
from unbroken.client import Received as Received
from unbroken.client import SyncClient as SyncClient
from unbroken.embed import Followed as Followed
from unbroken.embed import Unbroken as Unbroken
from unbroken.errors import UnbrokenError as UnbrokenError
from unbroken.identity import Grant as Grant
from unbroken.identity import Principal as Principal
from unbroken.identity import Verb as Verb
from unbroken.limits import Limits as Limits
from unbroken.messages import Cursor as Cursor
from unbroken.messages import Message as Message
from unbroken.messages import NewMessage as NewMessage
from unbroken.messages import StreamInfo as StreamInfo
from unbroken.messages import StreamState as StreamState
from unbroken.runs.context import RunContext as RunContext
from unbroken.runs.context import RunEnded as RunEnded
from unbroken.runs.task import TaskOptions as TaskOptions
from unbroken.runs.task import task as task

__version__: str
__all__: list[str]
