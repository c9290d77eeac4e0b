from bssl_tf.workflows.auto import auto as auto
from bssl_tf.workflows.bench import bench as bench
from bssl_tf.workflows.check import check as check
from bssl_tf.workflows.compare import compare as compare
from bssl_tf.workflows.embed import embed as embed
from bssl_tf.workflows.export import export as export
from bssl_tf.workflows.import_teacher import import_teacher as import_teacher
from bssl_tf.workflows.inspect import inspect as inspect
from bssl_tf.workflows.make_data import make_data as make_data
from bssl_tf.workflows.pack import pack as pack
from bssl_tf.workflows.python import evaluate as evaluate
from bssl_tf.workflows.python import finetune as finetune
from bssl_tf.workflows.python import pretrain as pretrain
from bssl_tf.workflows.python import train_teacher as train_teacher
from bssl_tf.workflows.report import report as report
from bssl_tf.workflows.run import Run as Run
from bssl_tf.workflows.select import select as select
from bssl_tf.workflows.similar import similar as similar
from bssl_tf_deploy.runtime import load as load

__all__: list[str]
__version__: str
